-- Only where the entry is still the one that was looked at.
update catalog
set purge_due_since = marked.since
from unnest($1, $2, $3) as marked (event, deleted_at, since)
where catalog.event = marked.event and catalog.deleted_at = marked.deleted_at
