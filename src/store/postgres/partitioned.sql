-- The counts are in the partitions: what they were made after would only mislead.
drop view counts, unfolded_entries;
drop table ledger, retired_writers, deltas, folded, fold_lock, hourly_counts, event_totals, hour_totals, removals, set_aside;
create view counts as
    select event, hour, cast(sum(count) as bigint) as count
    from (/* all */) as parts
    group by event, hour;
comment on view counts is
    'For people: how many times each event happened in each hour, as this program shows it at the moment: with what is not folded yet, under the present names, without deleted events.';
comment on column counts.hour is 'When the hour begins.';
