select last_seq from ledger where writer = $1 for update
