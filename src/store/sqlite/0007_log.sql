-- Version 7: what was committed lately is kept, batch by batch.

create table deltas (
    writer blob not null,
    seq integer not null, -- number of the batch
    after integer not null, -- where the ledger of the writer stood before
    catalog integer not null, -- the version of the catalog that was known before the first of the counts
    total text not null, -- decimal: the sum of all counts
    entries integer not null,
    rows text not null, -- JSON: a list of [event, hour, count], as they were counted
    at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
    primary key (writer, seq)
) strict, without rowid;
