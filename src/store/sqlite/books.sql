-- Sums of 64-bit numbers may exceed 64 bits, so the upper and the lower 32 bits are summed apart.
select
    (select coalesce(sum(count >> 32), 0) from hourly_counts),
    (select coalesce(sum(count & 0xffffffff), 0) from hourly_counts),
    (select coalesce(sum(total >> 32), 0) from event_totals),
    (select coalesce(sum(total & 0xffffffff), 0) from event_totals),
    (select coalesce(sum(amount >> 32), 0) from removals),
    (select coalesce(sum(amount & 0xffffffff), 0) from removals)
