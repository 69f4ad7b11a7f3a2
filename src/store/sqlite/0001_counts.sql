-- Version 1: counts, ledger, books. Text is compared bytewise (BINARY, the default).

create table hourly_counts (
    event text not null,
    hour integer not null, -- hours since 1970-01-01 00:00 UTC: datetime(hour * 3600, 'unixepoch')
    count integer not null check (count >= 0),
    primary key (event, hour)
) strict, without rowid;

-- The all-time total of each event, changed in the same transaction as its hourly_counts. Every
-- event of hourly_counts is here.
create table event_totals (
    event text not null primary key,
    total integer not null check (total >= 0),
    first_hour integer not null,
    last_hour integer not null
) strict, without rowid;

-- Which batches are in the counts. Never delete a row: a batch that its writer still holds would be
-- counted twice.
create table ledger (
    writer blob not null primary key, -- 16 random bytes, new at every start of a node
    last_seq integer not null,
    total text not null, -- decimal: the sum of all counts of this writer, exact beyond 64 bits
    started_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
    updated_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ'))
) strict, without rowid;

-- What administrators took out of the counts; negative amounts were added:
-- sum(hourly_counts.count) + sum(removals.amount) = sum(ledger.total).
create table removals (
    id blob not null primary key, -- 16 random bytes
    amount integer not null,
    reason text not null,
    at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ'))
) strict, without rowid;

-- Tells databases apart, so that no journal is ever replayed into two of them. Never change it.
create table store_identity (
    only_row integer primary key check (only_row = 1),
    identity blob not null
) strict;
