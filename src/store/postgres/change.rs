//! The catalog and its log: what administrators change, in one transaction each.

use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::{try_join, try_join3};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::client::{Client, Param};
use super::fold;
use super::rows::{column, time, time_or_none};
use super::session::Session;
use crate::domain::{EventName, HourlyCount, Partitions};
use crate::store::StoreError;
use crate::store::admin::due::{Deleted, REMEMBERED};
use crate::store::admin::log::{CountChange, Recorded, read_entries, stored_entries};
use crate::store::admin::plan::{History, Plan, State, names_of, plan};
use crate::store::admin::{Catalog, CatalogEntry, Change, Changed, Facts, LoggedChange, Told};
use crate::store::aside::Failure;
use crate::store::columns::{event_name, hour, hourly_count, stored_count, stored_hour, unsigned};
use crate::store::migration::random_identity;

pub(super) async fn catalog(client: &Client) -> Result<Catalog, StoreError> {
    let (version, rows, purges) = try_join3(
        client.query_typed_one("select version from catalog_version", &[]),
        client.query_typed("select event, description, inactive, deleted_at, alias_of from catalog", &[]),
        client.query_typed("select event, version from purge_marks", &[]),
    )
    .await?;
    let purge = |row: &Row| Ok::<_, StoreError>((event_name(column(row, 0)?)?, unsigned(column(row, 1)?)?));
    Ok(Catalog {
        version: unsigned(column(&version, 0)?)?,
        entries: rows.iter().map(entry).collect::<Result<_, _>>()?,
        purges: purges.iter().map(purge).collect::<Result<_, _>>()?,
    })
}

fn entry(row: &Row) -> Result<(EventName, CatalogEntry), StoreError> {
    let alias_of: Option<&str> = column(row, 4)?;
    let entry = CatalogEntry {
        description: column(row, 1)?,
        inactive: column(row, 2)?,
        deleted_at: time_or_none(row, 3)?,
        alias_of: alias_of.map(event_name).transpose()?,
    };
    Ok((event_name(column(row, 0)?)?, entry))
}

/// What the database's clock says.
async fn now(client: &Client) -> Result<DateTime<Utc>, StoreError> {
    time(&client.query_typed_one("select now()", &[]).await?, 0)
}

async fn deleted(client: &Client) -> Result<Vec<Deleted<String>>, StoreError> {
    let sql = "select event, deleted_at, purge_due_since from catalog where deleted_at is not null order by event";
    let rows = client.query_typed(sql, &[]).await?;
    let deleted = rows
        .iter()
        .map(|row| Ok(Deleted { event: column(row, 0)?, deleted_at: time(row, 1)?, marked: time_or_none(row, 2)? }));
    deleted.collect()
}

/// As [`crate::store::admin::AdminStore::due_purges`], within a transaction.
pub(super) async fn due_purges(client: &Client, grace: TimeDelta) -> Result<Vec<EventName>, StoreError> {
    let (now, deleted) = try_join(now(client), deleted(client)).await?;
    let (mut events, mut times, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    for entry in &deleted {
        if let Some(mark) = entry.mark(grace, now) {
            events.push(entry.event.as_str());
            times.push(SystemTime::from(entry.deleted_at));
            marks.push(mark.map(SystemTime::from));
        }
    }
    if !events.is_empty() {
        let params: [Param<'_>; 3] =
            [(&events, Type::TEXT_ARRAY), (&times, Type::TIMESTAMPTZ_ARRAY), (&marks, Type::TIMESTAMPTZ_ARRAY)];
        client.execute_typed(include_str!("purge_due_mark.sql"), &params).await?;
    }
    deleted.iter().filter(|entry| entry.is_ripe(grace, now)).map(|entry| event_name(&entry.event)).collect()
}

/// Makes a change, in a transaction of its own; also gives how many rows were set aside for it. Any error
/// leaves the transaction open or broken: the caller must drop the session.
pub(super) async fn change(
    session: &Session,
    begin: &str,
    change: &Change,
    who: &str,
    at: DateTime<Utc>,
) -> Result<(Changed, usize), StoreError> {
    let client = &session.client;
    let mut set_aside = 0;
    loop {
        session.begin(begin).await?;
        client.query_typed("select version from catalog_version for update", &[]).await?;
        match fold_all(session).await? {
            None => break,
            Some(partition) => {
                client.batch_execute("rollback").await?;
                set_aside += fold::carefully(session, begin, partition).await?.1;
            }
        }
    }
    let changed = make(session, change, who, at).await?;
    client.commit().await?;
    Ok((changed, set_aside))
}

/// A change counts what is stored row by row, so all that is committed has to be there. What is committed from
/// now on is folded by what the catalog says after this change. `Some`: the transaction has failed, since a row
/// of this partition was refused.
async fn fold_all(session: &Session) -> Result<Option<u16>, StoreError> {
    for partition in session.home.partitions.all() {
        session.enter(partition).await?;
        let has_purges = fold::lock(&session.client).await?;
        match fold::all(session, has_purges).await {
            Ok(()) => {}
            Err(Failure::Row(_)) => return Ok(Some(partition)),
            Err(Failure::Other(error)) => return Err(error),
        }
    }
    session.leave().await?;
    Ok(None)
}

/// Makes the version of the catalog the next one, within a transaction that is in no partition, and gives it.
pub(super) async fn raise_version(session: &Session) -> Result<i64, StoreError> {
    let client = &session.client;
    let sql = "update catalog_version set version = version + 1 returning version";
    let number: i64 = column(&client.query_typed_one(sql, &[]).await?, 0)?;
    for partition in copies(session) {
        session.enter(partition).await?;
        client.execute_typed("update catalog_version set version = $1", &[(&number, Type::INT8)]).await?;
    }
    session.leave().await?;
    Ok(number)
}

/// The partitions that have a catalog of their own, which has to say the same.
fn copies(session: &Session) -> std::ops::Range<u16> {
    let partitions = session.home.partitions;
    if partitions == Partitions::ONE { 0..0 } else { partitions.all() }
}

async fn make(session: &Session, change: &Change, who: &str, at: DateTime<Utc>) -> Result<Changed, StoreError> {
    let client = &session.client;
    let (now, Catalog { entries, .. }) = try_join(now(client), catalog(client)).await?;
    let recorded = match change {
        Change::Undo { change } => recorded(client, *change).await?,
        _ => None,
    };
    let due_since = match change {
        Change::Purge { event, .. } => {
            let sql = "select purge_due_since from catalog where event = $1";
            let row = client.query_typed_opt(sql, &[(&event.as_str(), Type::TEXT)]).await?;
            row.map(|row| time_or_none(&row, 0)).transpose()?.flatten()
        }
        _ => None,
    };
    let mut state = State { entries, now, due_since, ..State::default() };
    for event in names_of(change, recorded.as_ref(), &state.entries) {
        session.enter(session.home.partitions.of(&event)).await?;
        let history = history(client, &event).await?;
        state.histories.insert(event, history);
    }
    session.leave().await?;
    let plan = match plan(change, recorded.as_ref(), &state, at) {
        Ok(plan) => plan,
        Err(reason) => return Ok(Changed::Refused { reason }),
    };
    let number = raise_version(session).await?;
    write_catalog(client, &plan).await?;
    write_purges(client, &plan, number).await?;
    write_log(client, &plan, number, who, at).await?;
    for partition in copies(session) {
        session.enter(partition).await?;
        write_catalog(client, &plan).await?;
        write_purges(client, &plan, number).await?;
    }
    for partition in session.home.partitions.all() {
        session.enter(partition).await?;
        let is_here = |event: &EventName| session.home.partitions.of(event) == partition;
        let removed = write_counts(client, &plan, is_here).await?;
        if removed != 0 {
            let reason = format!("change {number}, {}, by {who}", plan.line.what);
            write_removal(client, removed, &reason).await?;
        }
    }
    session.leave().await?;
    Ok(Changed::Done { change: number })
}

async fn history(client: &Client, event: &EventName) -> Result<History, StoreError> {
    let sql = "select hour, count from hourly_counts where event = $1 and count > 0";
    let rows = client.query_typed(sql, &[(&event.as_str(), Type::TEXT)]).await?;
    rows.iter()
        .map(|row| {
            let row = hourly_count(event.as_str(), column(row, 0)?, column(row, 1)?)?;
            Ok((row.hour, row.count))
        })
        .collect()
}

async fn recorded(client: &Client, change: i64) -> Result<Option<Recorded>, StoreError> {
    let params: [Param<'_>; 1] = [(&change, Type::INT8)];
    let sql = "select what, event, facts, undoable, undone_by, entries from admin_changes
         where change = $1 and event is not null";
    let Some(row) = client.query_typed_opt(sql, &params).await? else { return Ok(None) };
    let counts = client.query_typed("select event, hour, delta from changed_counts where change = $1", &params).await?;
    let counts = counts.iter().map(|row| {
        let event = event_name(column(row, 0)?)?;
        Ok(CountChange { event, hour: hour(column(row, 1)?)?, delta: column(row, 2)? })
    });
    Ok(Some(Recorded {
        what: column(&row, 0)?,
        event: event_name(column(&row, 1)?)?,
        facts: Facts::read(column(&row, 2)?)?,
        undoable: column(&row, 3)?,
        undone_by: column(&row, 4)?,
        entries: read_entries(column(&row, 5)?)?,
        counts: counts.collect::<Result<_, StoreError>>()?,
    }))
}

/// Those of a partition. Gives how many it has less then, for the books.
async fn write_counts(client: &Client, plan: &Plan, is_here: impl Fn(&EventName) -> bool) -> Result<i128, StoreError> {
    let (gone, set): (Vec<&HourlyCount>, Vec<&HourlyCount>) =
        plan.rows.iter().filter(|row| is_here(&row.event)).partition(|row| row.count == 0);
    for (rows, sql) in [(gone, include_str!("hourly_delete.sql")), (set, include_str!("hourly_set.sql"))] {
        let events: Vec<&str> = rows.iter().map(|row| row.event.as_str()).collect();
        let hours: Vec<i32> = rows.iter().map(|row| stored_hour(row.hour)).collect();
        let counts = rows.iter().map(|row| stored_count(row.count)).collect::<Result<Vec<i64>, _>>()?;
        let params: [Param<'_>; 3] =
            [(&events, Type::TEXT_ARRAY), (&hours, Type::INT4_ARRAY), (&counts, Type::INT8_ARRAY)];
        client.execute_typed(sql, &params).await?;
    }
    for (event, total) in plan.totals.iter().filter(|(event, _)| is_here(event)) {
        let event = event.as_str();
        client.execute_typed("delete from event_totals where event = $1", &[(&event, Type::TEXT)]).await?;
        if let Some(total) = total {
            let (first_hour, last_hour) = (stored_hour(total.first_hour), stored_hour(total.last_hour));
            let params: [Param<'_>; 4] = [
                (&event, Type::TEXT),
                (&stored_count(total.count)?, Type::INT8),
                (&first_hour, Type::INT4),
                (&last_hour, Type::INT4),
            ];
            let sql = "insert into event_totals (event, total, first_hour, last_hour) values ($1, $2, $3, $4)";
            client.execute_typed(sql, &params).await?;
        }
    }
    let counts: Vec<_> = plan.counts.iter().filter(|count| is_here(&count.event)).collect();
    let hours: Vec<i32> = counts.iter().map(|count| stored_hour(count.hour)).collect();
    let deltas: Vec<i64> = counts.iter().map(|count| count.delta).collect();
    let params: [Param<'_>; 2] = [(&hours, Type::INT4_ARRAY), (&deltas, Type::INT8_ARRAY)];
    client.execute_typed(include_str!("hour_totals_add.sql"), &params).await?;
    Ok(-deltas.into_iter().map(i128::from).sum::<i128>())
}

/// Books that the counts of a partition have become less by this.
pub(super) async fn write_removal(client: &Client, amount: i128, reason: &str) -> Result<(), StoreError> {
    let id = random_identity()?;
    let params: [Param<'_>; 3] =
        [(&id.as_slice(), Type::BYTEA), (&amount.to_string(), Type::TEXT), (&reason, Type::TEXT)];
    let sql = "insert into removals (id, amount, reason) values ($1, cast($2 as numeric), $3)";
    client.execute_typed(sql, &params).await?;
    Ok(())
}

async fn write_catalog(client: &Client, plan: &Plan) -> Result<(), StoreError> {
    for change in &plan.entries {
        let (event, entry) = (change.event.as_str(), &change.after);
        client.execute_typed("delete from catalog where event = $1", &[(&event, Type::TEXT)]).await?;
        if *entry != CatalogEntry::default() {
            let params: [Param<'_>; 5] = [
                (&event, Type::TEXT),
                (&entry.description, Type::TEXT),
                (&entry.inactive, Type::BOOL),
                (&entry.deleted_at.map(SystemTime::from), Type::TIMESTAMPTZ),
                (&entry.alias_of.as_ref().map(EventName::as_str), Type::TEXT),
            ];
            let sql =
                "insert into catalog (event, description, inactive, deleted_at, alias_of) values ($1, $2, $3, $4, $5)";
            client.execute_typed(sql, &params).await?;
        }
    }
    Ok(())
}

async fn write_purges(client: &Client, plan: &Plan, number: i64) -> Result<(), StoreError> {
    let purged: Vec<&str> = plan.line.purged.iter().map(EventName::as_str).collect();
    if purged.is_empty() {
        return Ok(());
    }
    let days = i32::try_from(REMEMBERED.num_days()).unwrap_or(i32::MAX);
    let sql = "delete from purge_marks where at < now() - make_interval(days => $1)";
    client.execute_typed(sql, &[(&days, Type::INT4)]).await?;
    let params: [Param<'_>; 2] = [(&purged, Type::TEXT_ARRAY), (&number, Type::INT8)];
    client.execute_typed(include_str!("purge_marks_upsert.sql"), &params).await?;
    Ok(())
}

async fn write_log(client: &Client, plan: &Plan, number: i64, who: &str, at: DateTime<Utc>) -> Result<(), StoreError> {
    let line = &plan.line;
    // What can't be undone needs no record of it.
    let (entries, counts) =
        if line.undoable { (plan.entries.as_slice(), plan.counts.as_slice()) } else { (&[][..], &[][..]) };
    let params: [Param<'_>; 8] = [
        (&number, Type::INT8),
        (&SystemTime::from(at), Type::TIMESTAMPTZ),
        (&who, Type::TEXT),
        (&line.what, Type::TEXT),
        (&line.event.as_str(), Type::TEXT),
        (&line.facts.stored()?, Type::TEXT),
        (&stored_entries(entries)?, Type::TEXT),
        (&line.undoable, Type::BOOL),
    ];
    client.execute_typed(include_str!("change_insert.sql"), &params).await?;
    let events: Vec<&str> = counts.iter().map(|count| count.event.as_str()).collect();
    let hours: Vec<i32> = counts.iter().map(|count| stored_hour(count.hour)).collect();
    let deltas: Vec<i64> = counts.iter().map(|count| count.delta).collect();
    let params: [Param<'_>; 4] =
        [(&number, Type::INT8), (&events, Type::TEXT_ARRAY), (&hours, Type::INT4_ARRAY), (&deltas, Type::INT8_ARRAY)];
    client.execute_typed(include_str!("changed_counts_insert.sql"), &params).await?;
    if let Some(undone) = line.undoes {
        let sql = "update admin_changes set undone_by = $1 where change = $2";
        client.execute_typed(sql, &[(&number, Type::INT8), (&undone, Type::INT8)]).await?;
    }
    let purged: Vec<&str> = line.purged.iter().map(EventName::as_str).collect();
    if !purged.is_empty() {
        let sql = "update admin_changes set undoable = false where event = any($1)";
        client.execute_typed(sql, &[(&purged, Type::TEXT_ARRAY)]).await?;
    }
    Ok(())
}

pub(super) async fn changes(
    client: &Client,
    events: &[EventName],
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<LoggedChange>, StoreError> {
    let (before, limit) = (before.unwrap_or(i64::MAX), i64::from(limit));
    let events: Vec<&str> = events.iter().map(EventName::as_str).collect();
    let mut params: Vec<Param<'_>> = vec![(&before, Type::INT8), (&limit, Type::INT8)];
    let of_events = if events.is_empty() {
        ""
    } else {
        params.push((&events, Type::TEXT_ARRAY));
        "and event = any($3)"
    };
    let sql = format!(
        "select change, at, who, what, event, account, before, after, facts, undone_by, undoable from admin_changes
         where change < $1 {of_events} order by change desc limit $2"
    );
    let rows = client.query_typed(&sql, &params).await?;
    let line = |row: &Row| {
        let (event, undone_by): (Option<&str>, Option<i64>) = (column(row, 4)?, column(row, 9)?);
        Ok(LoggedChange {
            change: column(row, 0)?,
            at: time(row, 1)?,
            who: column(row, 2)?,
            what: column(row, 3)?,
            event: event.map(event_name).transpose()?,
            account: column(row, 5)?,
            told: Told::read(column(row, 8)?, column(row, 6)?, column(row, 7)?)?,
            undone_by,
            can_undo: column::<bool>(row, 10)? && undone_by.is_none(),
        })
    };
    rows.iter().map(line).collect()
}
