select event, hour, count
from hourly_counts
where event in (select value from json_each(?4)) and hour between ?1 and ?2
order by event, hour
limit ?3
