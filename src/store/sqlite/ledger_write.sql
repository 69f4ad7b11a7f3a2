insert into ledger (writer, last_seq, total, digest) values (?1, ?2, ?3, ?4)
on conflict (writer) do update set
    last_seq = excluded.last_seq, total = excluded.total, digest = excluded.digest,
    updated_at = excluded.updated_at
