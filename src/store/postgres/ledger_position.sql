-- One row. The arrays are aggregated from the same rows in the same order: the live writers and those asked
-- for. Costs the number of these, however many writers there have ever been.
select
    cast(retired_writers.batches + shown.live_batches + version as bigint) as version,
    version as catalog,
    cast(retired_writers.total + shown.live_total as text) as total,
    shown.writers, shown.last_seqs, shown.totals, shown.digests
from catalog_version
cross join retired_writers
cross join (
    select
        coalesce(sum(last_seq) filter (where live), 0) as live_batches,
        coalesce(sum(total) filter (where live), 0) as live_total,
        coalesce(array_agg(writer), '{}') as writers,
        coalesce(array_agg(last_seq), '{}') as last_seqs,
        coalesce(array_agg(cast(total as text)), '{}') as totals,
        coalesce(array_agg(digest), '{}') as digests
    from (
        select writer, last_seq, total, digest, live from ledger where live
        union
        select writer, last_seq, total, digest, live from ledger where writer = any($1)
    ) as writers
) as shown
