insert into changed_counts (change, event, hour, delta)
select $1, event, hour, delta
from unnest($2, $3, $4) as changed (event, hour, delta)
