select event, total, first_hour, last_hour from event_totals order by event
