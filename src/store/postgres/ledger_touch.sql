-- Changes nothing that counts. Its commit waits, as every commit does, for the disk and for a
-- synchronous standby, so the row as it stands is as safe as if it had just been written.
update ledger set updated_at = now() where writer = $1
