-- No row: another node folds at the moment, or has begun to less than $1 seconds ago. A time to come was
-- noted by a clock that was wrong. Says whether there are marks of purges.
with due as (
    select only_row from fold_lock
    where folded_at <= now() - make_interval(secs => $1) or folded_at > now()
    for update skip locked
)
update fold_lock set folded_at = now()
from due
returning exists (select from purge_marks)
