-- Version 2: what administrators keep. Times are text: 2020-09-11T12:00:00.000000Z.

-- One row: the version of the catalog. Every change adds one to it and is numbered by it.
create table catalog_state (
    only_row integer primary key check (only_row = 1),
    version integer not null check (version >= 0)
) strict;
insert into catalog_state (only_row, version) values (1, 0);

-- What administrators said about events. An event without a row is active and has no description.
create table catalog (
    event text not null primary key,
    description text not null,
    inactive integer not null check (inactive in (0, 1)),
    deleted_at text, -- hidden since then, purged after the grace period
    alias_of text -- counts under this name belong to that event; never itself an alias
) strict, without rowid;

-- The log of changes.
create table admin_changes (
    change integer primary key, -- the version of the catalog that the change made
    at text not null,
    who text not null,
    what text not null,
    event text not null,
    before text not null, -- for people
    after text not null,
    entries text not null, -- JSON: what the change did to the catalog, for undoing it
    undoable integer not null check (undoable in (0, 1)),
    undone_by integer
) strict;
create index admin_changes_by_event on admin_changes (event, change);

-- What each change that can be undone did to hourly_counts.
create table changed_counts (
    change integer not null,
    event text not null,
    hour integer not null,
    delta integer not null,
    primary key (change, event, hour)
) strict, without rowid;

create table superusers (
    name text not null primary key check (length(cast(name as blob)) between 1 and 64),
    password_hash text not null, -- PHC string
    disabled integer not null check (disabled in (0, 1)),
    created_at text not null,
    last_login_at text
) strict, without rowid;

create table sessions (
    id_hash blob not null primary key, -- SHA-256 of the id
    username text not null,
    created_at text not null,
    last_seen_at text not null,
    expires_at text not null,
    agent text not null
) strict, without rowid;
create index sessions_by_username on sessions (username);

create table admin_keys (
    id integer primary key autoincrement,
    label text not null,
    secret_hash blob not null unique, -- SHA-256 of the secret
    hint text not null, -- the secret's first characters
    created_by text not null,
    created_at text not null,
    expires_at text,
    revoked_at text,
    last_used_at text
) strict;
