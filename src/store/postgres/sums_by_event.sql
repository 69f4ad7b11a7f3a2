-- A sum of 64-bit numbers is numeric. Deleted events and their aliases are hidden.
select event, cast(least(sum(count), 9223372036854775807) as bigint)
from hourly_counts
where hour between $1 and $2
    and event not in (
        select catalog.event
        from catalog
        join catalog as events on events.event = coalesce(catalog.alias_of, catalog.event)
        where events.deleted_at is not null
    )
group by event
order by event
