-- A writer's first row. Waits for a zombie that inserts the same one.
insert into ledger (writer, last_seq, total, digest)
values ($1, $2, cast($3 as numeric), $4)
on conflict (writer) do nothing
