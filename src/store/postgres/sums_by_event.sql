-- A sum of 64-bit numbers is numeric. Deleted events and their aliases are hidden.
select counts.event, cast(least(sum(counts.count), 9223372036854775807) as bigint)
from event_totals as totals
join hourly_counts as counts on counts.event = totals.event
where counts.hour between $1 and $2 and totals.first_hour <= $2 and totals.last_hour >= $1
    and totals.event not in (
        select catalog.event
        from catalog
        join catalog as events on events.event = coalesce(catalog.alias_of, catalog.event)
        where events.deleted_at is not null
    )
group by counts.event
order by counts.event
