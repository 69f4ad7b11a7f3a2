-- A writer's first row. Waits for a zombie that inserts the same one.
insert into ledger (writer, last_seq, total)
values ($1, $2, cast($3 as numeric))
on conflict (writer) do nothing
