-- Without deleted events and their aliases.
select event, hour, cast(least(sum(count), 9223372036854775807) as bigint)
from unfolded_entries
where hour between $1 and $2 and not is_overtaken
    and event not in (
        select catalog.event
        from catalog
        join catalog as events on events.event = coalesce(catalog.alias_of, catalog.event)
        where events.deleted_at is not null
    )
group by event, hour
order by event, hour
