-- What is folded, from the sums that the fold keeps. Deleted events and their aliases are hidden: of these
-- few, the rows are read.
with deleted as (
    select event from catalog where deleted_at is not null
), hidden as (
    select counts.hour, sum(counts.count) as total
    from catalog
    join hourly_counts as counts on counts.event = catalog.event
    where coalesce(catalog.alias_of, catalog.event) in (select event from deleted)
        and counts.hour between $1 and $2
    group by counts.hour
)
select hour, cast(least(hour_totals.total - coalesce(hidden.total, 0), 9223372036854775807) as bigint)
from hour_totals
left join hidden using (hour)
where hour between $1 and $2 and hour_totals.total > coalesce(hidden.total, 0)
order by hour
