-- Both ways, should the clock of the database be set back.
select
    node, writer, host, address, version, started_at, last_commit_at,
    cast(extract(epoch from now() - seen_at) as double precision) as reported,
    cast(coalesce(extract(epoch from now() - waiting_since), 0) as double precision) as lag
from nodes
where seen_at between now() - make_interval(secs => $1) and now() + make_interval(secs => $1)
order by address, host, writer
