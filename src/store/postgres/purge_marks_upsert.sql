insert into purge_marks (event, version, at)
select event, $2, now() from unnest($1) as purged (event)
on conflict (event) do update set version = excluded.version, at = excluded.at
