-- A sum beyond 64 bits would become a REAL, which the STRICT column refuses.
insert into hourly_counts (event, hour, count) values (?1, ?2, ?3)
on conflict (event, hour) do update set count = count + excluded.count
