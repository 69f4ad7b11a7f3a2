select event, total from event_totals order by event
