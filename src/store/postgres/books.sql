-- Sums of bigint are numeric, hence exact; as text they come through undiminished.
with unfolded as (
    select
        coalesce(sum(count) filter (where not is_overtaken), 0) as counted,
        coalesce(sum(count) filter (where is_overtaken), 0) as overtaken
    from unfolded_entries
)
select
    cast((select coalesce(sum(count), 0) from hourly_counts) + counted as text) as rows,
    cast((select coalesce(sum(total), 0) from event_totals) + counted as text) as totals,
    cast((select coalesce(sum(total), 0) from hour_totals) + counted as text) as hours,
    cast((select coalesce(sum(amount), 0) from removals) + overtaken as text) as removed,
    cast((select coalesce(sum(total), 0) from ledger) as text) as ledger
from unfolded
