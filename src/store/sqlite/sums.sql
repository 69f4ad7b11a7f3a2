-- As hourly_all.sql, without deleted events and their aliases.
select counts.event, counts.hour, counts.count
from event_totals as totals
cross join hourly_counts as counts
where counts.event = totals.event and counts.hour between ?1 and ?2
    and totals.first_hour <= ?2 and totals.last_hour >= ?1
    and totals.event not in (
        select named.event
        from catalog as named
        join catalog as events on events.event = coalesce(named.alias_of, named.event)
        where events.deleted_at is not null
    )
order by totals.event, counts.hour
