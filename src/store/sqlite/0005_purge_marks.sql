-- Version 5: what is irreversible waits for two looks at the clock, and a purge stays known.

-- Since when the purge of a deleted event is due, by this machine's clock. The purge happens only some
-- time later.
alter table catalog add column purge_due_since text;

-- Names whose counts were removed for good. Counts in flight since before then do not bring them back.
create table purge_marks (
    event text not null primary key,
    version integer not null, -- of the catalog that the purge made
    at text not null
) strict, without rowid;
create index purge_marks_by_version on purge_marks (version);
