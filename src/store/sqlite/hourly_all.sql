-- The key begins with the event; going through event_totals keeps a short range cheap however many
-- hours are stored. CROSS JOIN keeps the tables in this order, and so the rows in theirs.
select counts.event, counts.hour, counts.count
from event_totals as totals
cross join hourly_counts as counts
where counts.event = totals.event and counts.hour between ?1 and ?2
    and totals.first_hour <= ?2 and totals.last_hour >= ?1
order by totals.event, counts.hour
limit ?3
