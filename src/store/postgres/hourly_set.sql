insert into hourly_counts (event, hour, count)
select * from unnest($1, $2, $3)
on conflict (event, hour) do update set count = excluded.count
