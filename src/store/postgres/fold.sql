-- Adds what is in the log and not yet folded to the counts, in one snapshot: the first batches of each writer,
-- in turns, as many as hold some $1 counters. The lock of fold_lock is held, so nobody else writes these
-- tables meanwhile.
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
), entries as materialized (
    select
        due.writer,
        due.seq,
        counted.event,
        counted.hour,
        counted.count,
        purge_marks.event is not null as is_overtaken
    from due
    join deltas on deltas.writer = due.writer and deltas.seq = due.seq
    cross join lateral unnest(deltas.events, deltas.hours, deltas.counts) as counted (event, hour, count)
    left join purge_marks on purge_marks.event = counted.event and purge_marks.version > deltas.catalog
), counted as materialized (
    select event, hour, cast(sum(count) as bigint) as count
    from entries
    where not is_overtaken
    group by event, hour
    order by event, hour
), hourly as (
    insert into hourly_counts as stored (event, hour, count)
    select event, hour, count from counted
    on conflict (event, hour) do update set count = stored.count + excluded.count
), totals as (
    insert into event_totals as stored (event, total, first_hour, last_hour)
    select event, cast(sum(count) as bigint), min(hour), max(hour) from counted group by event order by event
    on conflict (event) do update set
        total = stored.total + excluded.total,
        first_hour = least(stored.first_hour, excluded.first_hour),
        last_hour = greatest(stored.last_hour, excluded.last_hour)
), hours as (
    insert into hour_totals as stored (hour, total)
    select hour, sum(count) from counted group by hour order by hour
    on conflict (hour) do update set total = stored.total + excluded.total
/* overtaken */), marks as (
    update folded set seq = reached.seq
    from (select writer, max(seq) as seq from due group by writer) as reached
    where folded.writer = reached.writer
)
select count(*), coalesce(sum(entries), 0) from due
