-- One row. The arrays are aggregated from the same rows in the same order.
select
    cast(coalesce(sum(last_seq), 0) as bigint) + (select version from catalog_state) as version,
    (select version from catalog_state) as catalog,
    coalesce(array_agg(writer) filter (where writer = any($1)), '{}') as writers,
    coalesce(array_agg(last_seq) filter (where writer = any($1)), '{}') as last_seqs,
    coalesce(array_agg(cast(total as text)) filter (where writer = any($1)), '{}') as totals,
    coalesce(array_agg(digest) filter (where writer = any($1)), '{}') as digests
from ledger
