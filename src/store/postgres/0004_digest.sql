-- Version 4: the ledger tells what its last batch held; rows that can't be stored have a place.

alter table ledger add column digest bytea;
comment on column ledger.digest is
    'SHA-256, cut to 16 bytes, of the rows of the last batch. Null: written by a version that kept none.';

create table set_aside (
    writer bytea not null,
    seq bigint not null,
    event text collate "C" not null,
    hour integer not null,
    count numeric not null,
    reason text not null,
    at timestamptz not null default now(),
    primary key (writer, seq, event, hour)
);
comment on table set_aside is
    'Rows of batches that the tables of counts refused. Each is in removals as well, so the books balance. Once the cause is gone an administrator may add them by a correction.';
comment on column set_aside.writer is 'Of the batch, as in the ledger.';
comment on column set_aside.seq is 'Of the batch, as in the ledger.';
comment on column set_aside.reason is 'What the database said.';
