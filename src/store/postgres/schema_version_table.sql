create table if not exists schema_version (
    version integer primary key,
    applied_at timestamptz not null default now()
)
