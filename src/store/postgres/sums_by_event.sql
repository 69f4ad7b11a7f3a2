-- A sum of 64-bit numbers is numeric. Deleted events are hidden.
select counts.event, cast(least(sum(counts.count), 9223372036854775807) as bigint)
from event_totals as totals
join hourly_counts as counts on counts.event = totals.event
where counts.hour between $1 and $2 and totals.first_hour <= $2 and totals.last_hour >= $1
    and totals.event not in (select event from catalog where deleted_at is not null)
group by counts.event
order by counts.event
