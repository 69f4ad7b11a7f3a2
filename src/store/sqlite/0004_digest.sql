-- Version 4: the ledger tells what its last batch held; rows that can't be stored have a place.

-- SHA-256, cut to 16 bytes, of the rows of the last batch. Null: written by a version that kept none.
alter table ledger add column digest blob;

-- Rows of batches that the tables of counts refused. Each is in removals as well, so the books balance.
create table set_aside (
    writer blob not null,
    seq integer not null,
    event text not null,
    hour integer not null,
    count text not null, -- decimal: it may exceed 63 bits
    reason text not null, -- what the database said
    at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
    primary key (writer, seq, event, hour)
) strict, without rowid;
