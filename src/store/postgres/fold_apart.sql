-- As fold.sql, for an engine that sends one statement whole to one machine only if that inserts nothing: adds to
-- the rows that there are. Says which batches it took, and how many rows are missing, which are inserted by
-- statements of their own. Sums up before it sorts, as fold.sql does.
with waiting as (
    select
        deltas.writer,
        deltas.seq,
        deltas.entries,
        row_number() over (partition by deltas.writer order by deltas.seq) as turn
    from folded
    cross join lateral (
        select writer, seq, entries from deltas where deltas.writer = folded.writer and deltas.seq > folded.seq
    ) as deltas
), due as materialized (
    select writer, seq, entries
    from (
        select waiting.*, sum(entries) over (order by turn, writer) - entries as entries_before from waiting
    ) as queued
    where entries_before < $1
), entries as (
    select
        due.writer,
        due.seq,
        counted.event,
        counted.hour,
        counted.count,
        counted.event in (select event from purge_marks) and exists (
            select from purge_marks as marks where marks.event = counted.event and marks.version > deltas.catalog
        ) as is_overtaken
    from due
    join deltas on deltas.writer = due.writer and deltas.seq = due.seq
    cross join lateral unnest(deltas.events, deltas.hours, deltas.counts) as counted (event, hour, count)
), summed as materialized (
    select event, hour, cast(sum(count) as bigint) as count
    from entries
    where not is_overtaken
    group by event, hour
), counted as materialized (
    select event, hour, count from summed order by event, hour
), located as materialized (
    select counted.event, counted.hour, counted.count, stored.ctid as place
    from counted
    left join hourly_counts as stored on stored.event = counted.event and stored.hour = counted.hour
), renewed as (
    update hourly_counts as stored set count = stored.count + located.count
    from located where stored.ctid = located.place
    returning true
), by_event as materialized (
    select event, cast(sum(count) as bigint) as total, min(hour) as first_hour, max(hour) as last_hour
    from counted
    group by event
    order by event
), located_totals as materialized (
    select by_event.*, stored.ctid as place
    from by_event
    left join event_totals as stored on stored.event = by_event.event
), renewed_totals as (
    update event_totals as stored set
        total = stored.total + located.total,
        first_hour = least(stored.first_hour, located.first_hour),
        last_hour = greatest(stored.last_hour, located.last_hour)
    from located_totals as located where stored.ctid = located.place
    returning true
), by_hour as materialized (
    select hour, sum(count) as total from counted group by hour order by hour
), renewed_hours as (
    update hour_totals as stored set total = stored.total + by_hour.total
    from by_hour where stored.hour = by_hour.hour
    returning true
), reached as materialized (
    select due.writer, min(folded.seq) as after, max(due.seq) as seq
    from due join folded on folded.writer = due.writer
    group by due.writer
), marks as (
    update folded set seq = reached.seq from reached where folded.writer = reached.writer
)
select
    count(*),
    coalesce(sum(entries), 0),
    (select count(*) from located where place is not null) = (select count(*) from renewed)
        and (select count(*) from located_totals where place is not null) = (select count(*) from renewed_totals),
    (select count(*) from located where place is null),
    (select count(*) from located_totals where place is null),
    (select count(*) from by_hour) - (select count(*) from renewed_hours),
    (select coalesce(array_agg(writer), '{}') from reached),
    (select coalesce(array_agg(after), '{}') from reached),
    (select coalesce(array_agg(seq), '{}') from reached)
from due
