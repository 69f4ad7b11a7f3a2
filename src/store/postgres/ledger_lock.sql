select last_seq, cast(total as text), digest from ledger where writer = $1 for update
