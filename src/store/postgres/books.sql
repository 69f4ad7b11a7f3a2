-- Sums of bigint are numeric, hence exact; as text they come through undiminished.
select
    cast((select coalesce(sum(count), 0) from hourly_counts) as text) as rows,
    cast((select coalesce(sum(total), 0) from event_totals) as text) as totals,
    cast((select coalesce(sum(amount), 0) from removals) as text) as removed,
    cast((select coalesce(sum(total), 0) from ledger) as text) as ledger
