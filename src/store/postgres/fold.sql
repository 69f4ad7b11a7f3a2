-- Adds what is in the log and not yet folded to the counts, in one snapshot: the first batches of each writer,
-- in turns, as many as hold some $1 counters. The lock of fold_lock is held, so no other node writes these
-- tables meanwhile.
--
-- Rows are looked up, and then updated where they are, instead of by INSERT .. ON CONFLICT: that locks each
-- row first and writes 128 bytes of WAL for it instead of 72. A row that somebody has changed by hand meanwhile
-- is not where it was: the last column of the result is false then.
--
-- Entries are summed up by a hash before they are sorted: a row that many batches count is sorted once. Rows are
-- still written in their order. Entries are not kept unless a second part reads them: they are many.
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
        -- The first half is a look into a small table in memory, and mostly all.
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
), added as (
    insert into hourly_counts (event, hour, count)
    select event, hour, count from located where place is null
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
), added_totals as (
    insert into event_totals (event, total, first_hour, last_hour)
    select event, total, first_hour, last_hour from located_totals where place is null
    returning true
), hours as (
    insert into hour_totals as stored (hour, total)
    select hour, sum(count) from counted group by hour order by hour
    on conflict (hour) do update set total = stored.total + excluded.total
/* overtaken */), marks as (
    update folded set seq = reached.seq
    from (select writer, max(seq) as seq from due group by writer) as reached
    where folded.writer = reached.writer
)
select
    count(*),
    coalesce(sum(entries), 0),
    (select count(*) from located) = (select count(*) from renewed) + (select count(*) from added)
        and (select count(*) from by_event)
            = (select count(*) from renewed_totals) + (select count(*) from added_totals)
from due
