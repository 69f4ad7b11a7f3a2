-- Adds all that is in the log and not yet folded to the counts, in one snapshot. The lock of fold_lock is
-- held, so nobody else writes these tables meanwhile.
with due as materialized (
    select deltas.writer, deltas.seq, deltas.entries
    from folded
    cross join lateral (
        select writer, seq, entries from deltas where deltas.writer = folded.writer and deltas.seq > folded.seq
    ) as deltas
), entries as materialized (
    select * from unfolded_entries
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
