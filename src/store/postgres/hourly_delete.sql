-- The third array, of counts, is here so that both statements of a change take the same parameters.
delete from hourly_counts as stored
using unnest($1, $2, $3) as gone (event, hour, count)
where stored.event = gone.event and stored.hour = gone.hour
