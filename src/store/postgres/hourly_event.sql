select event, hour, count
from hourly_counts
where event = any($4) and hour between $1 and $2
order by event, hour
limit $3
