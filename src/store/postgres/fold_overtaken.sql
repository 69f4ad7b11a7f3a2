-- The first half by itself, since Citus can't send on an INSERT .. SELECT with functions that are not immutable.
with lost as materialized (
    select
        substring(sha256(convert_to(concat_ws('/', encode(writer, 'hex'), seq, event), 'UTF8')) for 16) as id,
        sum(count) as amount,
        format('in flight when “%s” was purged: batch %s of %s', event, seq, encode(writer, 'hex')) as reason
    from /* entries */
    where is_overtaken
    group by writer, seq, event
)
insert into removals (id, amount, reason) select id, amount, reason from lost
