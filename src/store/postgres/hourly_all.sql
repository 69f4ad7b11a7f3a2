-- The index by hour keeps a short range cheap however many hours are stored.
select event, hour, count
from hourly_counts
where hour between $1 and $2
order by event, hour
limit $3
