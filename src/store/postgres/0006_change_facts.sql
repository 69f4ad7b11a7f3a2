-- Version 6: the log of changes keeps facts; programs and pages make sentences of them.

alter table admin_changes add column facts text;
comment on column admin_changes.facts is
    'JSON: what was before and what is after. Null: an earlier version wrote sentences in before and after instead.';
comment on column admin_changes.before is 'A sentence of an earlier version: what was before. Empty where there are facts.';
comment on column admin_changes.after is 'A sentence of an earlier version: what is after. Empty where there are facts.';
