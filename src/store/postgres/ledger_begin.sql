-- A writer's first batch. Waits for a zombie that inserts the same row.
with begun as (
    insert into ledger (writer, last_seq, total, digest, live)
    values ($1, $2, cast($3 as numeric), $4, true)
    on conflict (writer) do nothing
    returning writer
), marked as (
    insert into folded (writer, seq) select writer, $5 from begun
)
insert into deltas (writer, seq, after, catalog, total, entries, events, hours, counts)
select writer, $2, $5, $6, cast($3 as numeric), cardinality($7), $7, $8, $9 from begun
