insert into admin_changes (change, at, who, what, event, before, after, facts, entries, undoable)
values ($1, $2, $3, $4, $5, '', '', $6, $7, $8)
