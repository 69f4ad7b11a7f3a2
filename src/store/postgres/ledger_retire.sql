-- Writers that have not committed for long, of which the log holds nothing any more: mostly nodes that have
-- ended. One that commits again is revived.
with idle as (
    select ledger.writer, ledger.last_seq
    from ledger
    join folded on folded.writer = ledger.writer
    where ledger.live and ledger.updated_at < now() - make_interval(secs => $1) and folded.seq = ledger.last_seq
        and not exists (select from deltas where deltas.writer = ledger.writer)
    for update of ledger skip locked
), retired as (
    update ledger set live = false from idle
    where ledger.writer = idle.writer and ledger.last_seq = idle.last_seq
    returning ledger.writer, ledger.last_seq, ledger.total
), unmarked as (
    delete from folded using retired where folded.writer = retired.writer
)
update retired_writers
set batches = retired_writers.batches + sums.batches, total = retired_writers.total + sums.total
from (select sum(last_seq) as batches, sum(total) as total from retired) as sums
where sums.batches is not null
