-- What is left of the user's sessions, and of everybody's: not the expired, not the oldest.
delete from sessions
where expires_at <= $4
    or username = $1 and id_hash not in (
        select id_hash from sessions where username = $1
        order by id_hash = $2 desc, created_at desc limit $3)
