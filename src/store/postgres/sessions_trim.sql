-- All but the user's newest; the one just made is the newest.
delete from sessions
where username = $1 and id_hash not in (
    select id_hash from sessions where username = $1
    order by id_hash = $2 desc, created_at desc limit $3)
