insert into removals (id, amount, reason)
select
    substring(sha256(convert_to(concat_ws('/', encode(writer, 'hex'), seq, event), 'UTF8')) for 16),
    sum(count),
    format('in flight when “%s” was purged: batch %s of %s', event, seq, encode(writer, 'hex'))
from /* entries */
where is_overtaken
group by writer, seq, event
