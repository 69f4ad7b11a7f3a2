-- The arrays are sorted by event bytes, then hour, and free of duplicates: rows are locked in the
-- same order by every node, so that two nodes never deadlock.
insert into hourly_counts as stored (event, hour, count)
select unnest($1), unnest($2), unnest($3)
on conflict (event, hour) do update set count = stored.count + excluded.count
