-- Version 3: the log also tells of changes to superusers and keys, which concern no event.

alter table admin_changes rename to admin_changes_of_events;
create table admin_changes (
    change integer primary key, -- the version of the catalog that the change made
    at text not null,
    who text not null,
    what text not null,
    event text, -- either this
    account text, -- or this superuser or key
    before text not null, -- for people
    after text not null,
    entries text not null, -- JSON: what the change did to the catalog, for undoing it
    undoable integer not null check (undoable in (0, 1)),
    undone_by integer,
    check ((event is null) <> (account is null))
) strict;
insert into admin_changes (change, at, who, what, event, before, after, entries, undoable, undone_by)
    select change, at, who, what, event, before, after, entries, undoable, undone_by from admin_changes_of_events;
drop table admin_changes_of_events;
create index admin_changes_by_event on admin_changes (event, change);
