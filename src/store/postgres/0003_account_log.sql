-- Version 3: the log also tells of changes to superusers and keys, which concern no event.

alter table admin_changes alter column event drop not null;
alter table admin_changes add column account text;
alter table admin_changes add constraint admin_changes_subject check ((event is null) <> (account is null));
comment on column admin_changes.account is 'The superuser or key, where no event was changed.';
comment on column admin_changes.who is
    'The superuser, the key, the command line, the set-up link, or event-tracker for what it does itself.';
