-- Every schema with tables of ours that this role may read; first the one that its search_path finds.
select
    spaces.nspname::text,
    coalesce(tables.oid = to_regclass('store_identity')::oid, false) as is_found
from pg_class as tables
join pg_namespace as spaces on spaces.oid = tables.relnamespace
where tables.relname = 'store_identity' and tables.relkind in ('r', 'p')
    and has_schema_privilege(spaces.oid, 'usage') and has_table_privilege(tables.oid, 'select')
order by is_found desc, spaces.nspname
