-- Over a gap: the database has lost commits that it had confirmed. The row is locked by now.
update ledger
set last_seq = $2, total = total + cast($3 as numeric), updated_at = now()
where writer = $1
