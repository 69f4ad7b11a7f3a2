-- The rows that fold_apart.sql has missed, of the batches that it took; they must be as many as it said.
insert into hourly_counts (event, hour, count)
select event, hour, count
from (
    select counted.event, counted.hour, cast(sum(counted.count) as bigint) as count
    from unnest($1, $2, $3) as due (writer, after, seq)
    join deltas on deltas.writer = due.writer and deltas.seq > due.after and deltas.seq <= due.seq
    cross join lateral unnest(deltas.events, deltas.hours, deltas.counts) as counted (event, hour, count)
    where not (
        counted.event in (select event from purge_marks) and exists (
            select from purge_marks as marks where marks.event = counted.event and marks.version > deltas.catalog
        )
    )
    group by counted.event, counted.hour
    order by counted.event, counted.hour
) as counted
where not exists (select from hourly_counts as stored where stored.event = counted.event and stored.hour = counted.hour)
