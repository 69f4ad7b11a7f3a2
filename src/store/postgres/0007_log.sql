-- Version 7: a commit appends one entry to a log; the entries are added up later, many at a time.

-- Nodes of earlier versions, which would add to the counts themselves, lock it by its old name with each
-- commit: they can't commit any more, and are turned away when they connect again.
alter table catalog_state rename to catalog_version;
comment on table catalog_version is
    'One row. Every change of an administrator locks it first. Counts stay under the name that they were counted with; reads tell which event it stands for.';

alter table ledger add column live boolean not null default false;
create index ledger_live on ledger (writer) where live;
comment on table ledger is
    'Which batches are in the log or in the counts. Never delete a row: a batch that its writer still holds would be counted twice.';
comment on column ledger.live is
    'Has committed lately and has a row in folded. Those that have not are summed up in retired_writers.';

create table retired_writers (
    only_row boolean primary key check (only_row),
    batches numeric not null,
    total numeric not null
);
comment on table retired_writers is
    'One row: the sums of ledger.last_seq and ledger.total of the writers that are not live, so that nobody has to look at each of them.';
insert into retired_writers (only_row, batches, total)
    select true, coalesce(sum(last_seq), 0), coalesce(sum(total), 0) from ledger;

create table deltas (
    writer bytea not null,
    seq bigint not null,
    after bigint not null,
    catalog bigint not null,
    total numeric not null,
    entries integer not null,
    events text[] collate "C" not null,
    hours integer[] not null,
    counts bigint[] not null,
    at timestamptz not null default now(),
    primary key (writer, seq)
) with (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
create index deltas_by_time on deltas (at);
-- Half the processor time of a commit for a sixth more bytes, where the server has it: from version 14 on, mostly.
do $$
begin
    execute 'alter table deltas
        alter column events set compression lz4,
        alter column hours set compression lz4,
        alter column counts set compression lz4';
exception
    when syntax_error or feature_not_supported then null;
end
$$;
comment on table deltas is
    'The log: one row a committed batch, with what it counted. Kept for some minutes after it is folded.';
comment on column deltas.seq is 'Number of the batch; the entry is folded when folded.seq of its writer has reached it.';
comment on column deltas.after is 'Where the ledger of the writer stood before.';
comment on column deltas.catalog is 'The version of the catalog that the node knew before it counted the first of these.';
comment on column deltas.total is 'Sum of counts.';
comment on column deltas.entries is 'How many there are in each of the three arrays, which belong together.';
comment on column deltas.events is 'The names as they were counted, also those of aliases.';
comment on column deltas.hours is 'Hours since 1970-01-01 00:00 UTC.';

create table folded (
    writer bytea primary key,
    seq bigint not null
) with (fillfactor = 50);
comment on table folded is 'How far the log of each live writer is in hourly_counts, event_totals and hour_totals.';

create table fold_lock (
    only_row boolean primary key check (only_row),
    folded_at timestamptz not null default '-infinity'
) with (fillfactor = 50);
comment on column fold_lock.folded_at is 'When the last fold began that a node did by itself.';
comment on column catalog.alias_of is 'Counts under this name show as those of that event, which is never itself an alias.';
comment on table fold_lock is 'One row. Locked by the node that folds, and by every change of an administrator.';
insert into fold_lock (only_row) values (true);

create table hour_totals (
    hour integer primary key,
    total numeric not null
) with (fillfactor = 80);
comment on table hour_totals is 'The total of each hour over all events: the sum of its hourly_counts, changed in the same transaction.';
insert into hour_totals (hour, total) select hour, sum(count) from hourly_counts group by hour;

-- For reads of some hours of all events. Its keys repeat, so it takes about 7 bytes a row.
create index hourly_counts_by_hour on hourly_counts (hour);

create unlogged table nodes (
    writer bytea primary key,
    node bytea not null,
    host text not null,
    address text not null,
    version text not null,
    started_at timestamptz not null,
    seen_at timestamptz not null,
    last_commit_at timestamptz,
    waiting_since timestamptz
) with (fillfactor = 50);
comment on table nodes is
    'One row a running node, written by itself every few seconds; old ones are deleted. Nothing hangs on it: a crash of the database may empty it.';
comment on column nodes.writer is 'The process: each start has a writer of its own.';
comment on column nodes.node is 'The data folder: stays the same when the node is started again.';
comment on column nodes.waiting_since is 'When the oldest count was made that the node had not committed when it was seen; null: there was none.';
