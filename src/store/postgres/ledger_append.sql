-- The whole of a usual commit. The update comes first and takes the writer's row lock, so it waits for a
-- zombie transaction of the same batch and sees what became of it; the entry depends on its outcome.
with advanced as (
    update ledger
    set last_seq = $2, total = total + cast($3 as numeric), digest = $4, updated_at = now()
    where writer = $1 and last_seq = $5 and live
    returning writer
)
insert into deltas (writer, seq, after, catalog, total, entries, events, hours, counts)
select writer, $2, $5, $6, cast($3 as numeric), cardinality($7), $7, $8, $9 from advanced
