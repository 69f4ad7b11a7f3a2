-- Not all at once, so that no fold is held up for long.
with old as (
    select deltas.writer, deltas.seq
    from deltas
    join folded on folded.writer = deltas.writer
    where deltas.at < now() - make_interval(secs => $1) and deltas.seq <= folded.seq
    order by deltas.at
    limit 200000
)
delete from deltas using old where deltas.writer = old.writer and deltas.seq = old.seq
