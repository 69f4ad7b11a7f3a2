-- What people with SQL see, of one partition; all that it reads is found by the search path.

create view unfolded_entries as
    select
        deltas.writer,
        deltas.seq,
        counted.event,
        counted.hour,
        counted.count,
        purge_marks.event is not null as is_overtaken
    from folded
    cross join lateral (
        select * from deltas where deltas.writer = folded.writer and deltas.seq > folded.seq
    ) as deltas
    cross join lateral unnest(deltas.events, deltas.hours, deltas.counts) as counted (event, hour, count)
    left join purge_marks on purge_marks.event = counted.event and purge_marks.version > deltas.catalog;
comment on view unfolded_entries is
    'What is in the log and not yet in hourly_counts. Overtaken are counts of a batch that began before its event was purged: they belong to nothing.';

create view counts as
    select event, to_timestamp(hour * 3600.0) as hour, cast(sum(count) as bigint) as count
    from (
        select event, hour, count
        from hourly_counts
        where event not in (select event from catalog where alias_of is not null or deleted_at is not null)
        union all
        select event, hour, count
        from unfolded_entries
        where not is_overtaken
            and event not in (select event from catalog where alias_of is not null or deleted_at is not null)
        union all
        select aliases.alias_of, counted.hour, counted.count
        from catalog as aliases
        join (
            select event, hour, count from hourly_counts
            union all
            select event, hour, count from unfolded_entries where not is_overtaken
        ) as counted on counted.event = aliases.event
        where aliases.alias_of not in (select event from catalog where deleted_at is not null)
    ) as shown
    group by event, hour;
comment on view counts is
    'For people: how many times each event happened in each hour, as this program shows it at the moment: with what is not folded yet, under the present names, without deleted events.';
comment on column counts.hour is 'When the hour begins.';
