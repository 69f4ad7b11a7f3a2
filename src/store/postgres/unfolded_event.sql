select event, hour, cast(least(sum(count), 9223372036854775807) as bigint)
from unfolded_entries
where hour between $1 and $2 and not is_overtaken and event = any($3)
group by event, hour
order by event, hour
