-- What is folded, from the sums that the fold keeps. Deleted events are hidden: of these few, the rows are
-- read.
with hidden as (
    select counts.hour, sum(counts.count) as total
    from catalog
    join hourly_counts as counts on counts.event = catalog.event
    where catalog.deleted_at is not null and counts.hour between $1 and $2
    group by counts.hour
)
select hour, cast(least(hour_totals.total - coalesce(hidden.total, 0), 9223372036854775807) as bigint)
from hour_totals
left join hidden using (hour)
where hour between $1 and $2 and hour_totals.total > coalesce(hidden.total, 0)
order by hour
