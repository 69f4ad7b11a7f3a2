insert into event_totals (event, total, first_hour, last_hour) values (?1, ?2, ?3, ?4)
on conflict (event) do update set
    total = total + excluded.total,
    first_hour = min(first_hour, excluded.first_hour),
    last_hour = max(last_hour, excluded.last_hour)
