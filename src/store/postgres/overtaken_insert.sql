insert into removals (id, amount, reason)
select id, cast(amount as numeric), reason
from unnest($1, $2, $3) as overtaken (id, amount, reason)
