select event, hour, count
from hourly_counts
where event = ?4 and hour between ?1 and ?2
order by hour
limit ?3
