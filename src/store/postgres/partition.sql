-- One partition: a small store of its own, in a schema of its own, with copies of what its statements need of
-- the catalog. /* home */ is where the tables were made that it is like.

create table ledger (like /* home */.ledger including all) with (fillfactor = 80);
create table retired_writers (like /* home */.retired_writers including all);
create table deltas (like /* home */.deltas including all) with (autovacuum_vacuum_scale_factor = 0.05);
create table folded (like /* home */.folded including all) with (fillfactor = 50);
create table fold_lock (like /* home */.fold_lock including all) with (fillfactor = 50);
create table hourly_counts (like /* home */.hourly_counts including all) with (fillfactor = 80);
create table event_totals (like /* home */.event_totals including all) with (fillfactor = 80);
create table hour_totals (like /* home */.hour_totals including all) with (fillfactor = 80);
create table removals (like /* home */.removals including all);
create table set_aside (like /* home */.set_aside including all);
create table catalog (like /* home */.catalog including all);
create table catalog_version (like /* home */.catalog_version including all);
create table purge_marks (like /* home */.purge_marks including all);

insert into retired_writers (only_row, batches, total) values (true, 0, 0);
insert into fold_lock (only_row) values (true);
insert into catalog_version (only_row, version) values (true, 0);
