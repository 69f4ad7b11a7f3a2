insert into set_aside (writer, seq, event, hour, count, reason)
select $1, $2, event, hour, cast(count as numeric), reason
from unnest($3, $4, $5, $6) as refused (event, hour, count, reason)
on conflict (writer, seq, event, hour) do update set count = set_aside.count + excluded.count
