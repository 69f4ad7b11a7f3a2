-- The rows that fold_apart.sql has missed, of the batches that it took; they must be as many as it said.
insert into event_totals (event, total, first_hour, last_hour)
select event, total, first_hour, last_hour
from (
    select counted.event, cast(sum(counted.count) as bigint) as total, min(counted.hour) as first_hour, max(counted.hour) as last_hour
    from unnest($1, $2, $3) as due (writer, after, seq)
    join deltas on deltas.writer = due.writer and deltas.seq > due.after and deltas.seq <= due.seq
    cross join lateral unnest(deltas.events, deltas.hours, deltas.counts) as counted (event, hour, count)
    where not (
        counted.event in (select event from purge_marks) and exists (
            select from purge_marks as marks where marks.event = counted.event and marks.version > deltas.catalog
        )
    )
    group by counted.event
    order by counted.event
) as counted
where not exists (select from event_totals as stored where stored.event = counted.event)
