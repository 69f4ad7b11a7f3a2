-- Version 6: the log of changes keeps facts; programs and pages make sentences of them.

-- JSON: what was before and what is after. Null: an earlier version wrote sentences in before and
-- after instead, which are empty where there are facts.
alter table admin_changes add column facts text;
