insert into ledger (writer, last_seq, total) values (?1, ?2, ?3)
on conflict (writer) do update set
    last_seq = excluded.last_seq, total = excluded.total, updated_at = excluded.updated_at
