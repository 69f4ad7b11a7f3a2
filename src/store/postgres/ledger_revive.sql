-- A writer that has not committed for long does so again; its row is locked.
with revived as (
    update ledger set live = true where writer = $1 and not live returning writer, last_seq, total
), marked as (
    insert into folded (writer, seq) select writer, last_seq from revived
)
update retired_writers
set batches = retired_writers.batches - revived.last_seq, total = retired_writers.total - revived.total
from revived
