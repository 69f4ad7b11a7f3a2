-- In one statement, so that a report costs one. It notes first and then forgets those that have not reported for
-- long, and those whose data folder this process has taken over, since they have not reported after its start.
-- Nobody waits for a row that another node is at while it holds one itself.
with noted as (
    insert into nodes (writer, node, host, address, version, started_at, seen_at, last_commit_at, waiting_since)
    values (
        $1, $2, $3, $4, $5,
        now() - make_interval(secs => $6), now(), now() - make_interval(secs => $7), now() - make_interval(secs => $8)
    )
    -- The start stays what it was first said to be: what is measured twice differs a little.
    on conflict (writer) do update set
        seen_at = excluded.seen_at,
        last_commit_at = excluded.last_commit_at,
        waiting_since = excluded.waiting_since
    returning writer, node, started_at
),
forgotten as (
    delete from nodes
    where writer in (
        select nodes.writer
        from nodes
        join noted on noted.writer <> nodes.writer
        where not nodes.seen_at between now() - make_interval(secs => $9) and now() + make_interval(secs => $9)
            or nodes.node = noted.node and nodes.seen_at < noted.started_at
        for update of nodes skip locked
    )
)
select count(*) from noted
