-- The rows that fold_apart.sql has missed, of the batches that it took; they must be as many as it said.
insert into hour_totals (hour, total)
select hour, total
from (
    select counted.hour, sum(counted.count) as total
    from unnest($1, $2, $3) as due (writer, after, seq)
    join deltas on deltas.writer = due.writer and deltas.seq > due.after and deltas.seq <= due.seq
    cross join lateral unnest(deltas.events, deltas.hours, deltas.counts) as counted (event, hour, count)
    where not (
        counted.event in (select event from purge_marks) and exists (
            select from purge_marks as marks where marks.event = counted.event and marks.version > deltas.catalog
        )
    )
    group by counted.hour
    order by counted.hour
) as counted
where not exists (select from hour_totals as stored where stored.hour = counted.hour)
