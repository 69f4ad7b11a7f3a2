-- Version 8: a store may be cut into partitions, when it is made.

alter table store_identity add column partitions integer not null default 1;
comment on column store_identity.partitions is
    'How many schemas hold the counts: with 1 it is this one, else those named after it, partition_0 and so on. Never change it.';
