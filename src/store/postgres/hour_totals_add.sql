-- An hour whose total becomes 0 may stay: it is not shown.
insert into hour_totals as stored (hour, total)
select hour, sum(count) from unnest($1, $2) as added (hour, count) group by hour order by hour
on conflict (hour) do update set total = stored.total + excluded.total
