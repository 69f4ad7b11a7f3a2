-- Version 1: counts, ledger, books.
--
-- Names are compared bytewise: COLLATE "C", whatever the database's own collation, so that this
-- program and the database always agree on which names are equal and how they sort.

create table hourly_counts (
    event text collate "C" not null,
    hour integer not null,
    count bigint not null check (count >= 0),
    primary key (event, hour)
) with (fillfactor = 80);
comment on table hourly_counts is 'How many times an event happened in an hour.';
comment on column hourly_counts.event is 'Name of the event, byte for byte, 1 to 255 bytes.';
comment on column hourly_counts.hour is 'Hours since 1970-01-01 00:00 UTC: to_timestamp(hour * 3600.0).';
comment on column hourly_counts.count is 'Occurrences within this hour.';

create table event_totals (
    event text collate "C" primary key,
    total bigint not null check (total >= 0),
    first_hour integer not null,
    last_hour integer not null
) with (fillfactor = 80);
comment on table event_totals is
    'The all-time total of each event: the sum of its hourly_counts, changed in the same transaction. Every event of hourly_counts is here.';
comment on column event_totals.total is 'Sum of hourly_counts.count.';
comment on column event_totals.first_hour is 'Earliest hour with a row, in hours since 1970-01-01 00:00 UTC.';
comment on column event_totals.last_hour is 'Latest hour with a row, in hours since 1970-01-01 00:00 UTC.';

create table ledger (
    writer bytea primary key,
    last_seq bigint not null,
    total numeric not null,
    started_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
) with (fillfactor = 80);
comment on table ledger is
    'Which batches are in the counts. Never delete a row: a batch that its writer still holds would be counted twice.';
comment on column ledger.writer is 'Who wrote: 16 random bytes, new at every start of a node.';
comment on column ledger.last_seq is 'Number of the last batch of this writer that was applied.';
comment on column ledger.total is 'Sum of all counts this writer ever applied.';
comment on column ledger.started_at is 'When the first batch was applied.';
comment on column ledger.updated_at is 'When the last batch was applied.';

create table removals (
    id bytea primary key,
    amount numeric not null,
    reason text not null,
    at timestamptz not null default now()
);
comment on table removals is
    'What administrators took out of the counts: sum(hourly_counts.count) + sum(removals.amount) = sum(ledger.total).';
comment on column removals.id is '16 random bytes.';
comment on column removals.amount is 'Occurrences removed; negative for those added.';
comment on column removals.reason is 'Why, and by whom.';

create table store_identity (
    only_row boolean primary key default true check (only_row),
    identity bytea not null
);
comment on table store_identity is
    'Tells databases apart, so that no journal is ever replayed into two of them. Never change it.';
comment on column store_identity.identity is '16 random bytes, made with the schema.';
