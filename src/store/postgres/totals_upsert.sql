-- Sorted by event bytes, after the hourly rows: the same order on every node.
insert into event_totals as stored (event, total, first_hour, last_hour)
select unnest($1), unnest($2), unnest($3), unnest($4)
on conflict (event) do update set
    total = stored.total + excluded.total,
    first_hour = least(stored.first_hour, excluded.first_hour),
    last_hour = greatest(stored.last_hour, excluded.last_hour)
