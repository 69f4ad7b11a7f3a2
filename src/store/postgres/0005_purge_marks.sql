-- Version 5: what is irreversible waits for two looks at the clock, and a purge stays known.

alter table catalog add column purge_due_since timestamptz;
comment on column catalog.purge_due_since is
    'Since when the purge of a deleted event is due, by the clock of the database. The purge happens only some time later.';

create table purge_marks (
    event text collate "C" primary key,
    version bigint not null,
    at timestamptz not null
);
create index purge_marks_by_version on purge_marks (version);
comment on table purge_marks is
    'Names whose counts were removed for good. Counts in flight since before then do not bring them back.';
comment on column purge_marks.version is 'The version of the catalog that the purge made.';
