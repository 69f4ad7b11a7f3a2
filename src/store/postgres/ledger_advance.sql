-- First statement of every commit. It takes the writer's row lock, so it waits for a zombie
-- transaction of the same batch and sees what became of it.
update ledger
set last_seq = $2, total = total + cast($3 as numeric), digest = $4, updated_at = now()
where writer = $1 and last_seq = $5
