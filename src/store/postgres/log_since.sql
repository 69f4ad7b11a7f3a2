-- Writers that are not live have committed nothing lately.
select writer, seq, after, catalog, cast(total as text), events, hours, counts
from (
    select deltas.*, sum(deltas.entries) over (order by deltas.at, deltas.writer, deltas.seq) as entries_through
    from ledger
    left join unnest($1, $2) as known (writer, seq) on known.writer = ledger.writer
    cross join lateral (
        select * from deltas where deltas.writer = ledger.writer and deltas.seq > coalesce(known.seq, 0)
    ) as deltas
    where ledger.live and ledger.last_seq > coalesce(known.seq, 0)
) as deltas
where entries_through <= $3
order by writer, seq
