-- Leaves those alone that somebody else is ending, so that nobody waits for each other in a circle.
delete from sessions
where id_hash in (select id_hash from sessions where expires_at <= $1 for update skip locked)
