-- The key begins with the event, so that inserts spread; going through event_totals keeps a short
-- range cheap however many hours are stored.
select counts.event, counts.hour, counts.count
from event_totals as totals
join hourly_counts as counts on counts.event = totals.event
where counts.hour between $1 and $2 and totals.first_hour <= $2 and totals.last_hour >= $1
order by counts.event, counts.hour
limit $3
