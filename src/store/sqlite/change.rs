//! The catalog and its log: what administrators change, in one transaction each.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::Clock;
use crate::domain::{BatchId, EventName};
use crate::store::StoreError;
use crate::store::admin::due::{Deleted, REMEMBERED};
use crate::store::admin::log::{CountChange, Recorded, read_entries, stored_entries};
use crate::store::admin::plan::{History, Plan, State, names_of, plan};
use crate::store::admin::{Catalog, CatalogEntry, Change, Changed, Facts, Landing, LoggedChange, Overtaken, Told};
use crate::store::columns::{
    event_name, hour, hourly_count, read_time, stored_count, stored_hour, stored_time, text_time, unsigned,
};
use crate::store::migration::random_identity;

/// Which rows of a batch count that was opened with version `known` of the catalog.
pub(super) fn landing(snapshot: &Transaction<'_>, known: u64) -> Result<Landing, StoreError> {
    let purged = snapshot
        .prepare_cached("select event from purge_marks where version > ?1")?
        .query_and_then([i64::try_from(known).unwrap_or(i64::MAX)], |row| event_name(&row.get::<_, String>(0)?))?
        .collect::<Result<_, StoreError>>()?;
    Ok(Landing { purged })
}

/// Books counts of a batch as removed that a purge has overtaken.
pub(super) fn book_overtaken(
    transaction: &Transaction<'_>,
    overtaken: &[Overtaken],
    batch: BatchId,
) -> Result<(), StoreError> {
    for gone in overtaken {
        let removal = (removed_amount(gone.count)?, gone.reason(batch));
        transaction
            .prepare_cached("insert into removals (id, amount, reason) values (?1, ?2, ?3)")?
            .execute(params![random_identity()?, removal.0, removal.1])?;
    }
    Ok(())
}

fn removed_amount(amount: i128) -> Result<i64, StoreError> {
    i64::try_from(amount).map_err(|_| StoreError::Rejected("what is removed exceeds 64 signed bits".into()))
}

pub(super) fn catalog(snapshot: &Transaction<'_>) -> Result<Catalog, StoreError> {
    let version: i64 = snapshot.query_row("select version from catalog_state", [], |row| row.get(0))?;
    let entries = snapshot
        .prepare_cached("select event, description, inactive, deleted_at, alias_of from catalog")?
        .query_and_then([], entry)?
        .collect::<Result<_, StoreError>>()?;
    let purges = snapshot
        .prepare_cached("select event, version from purge_marks")?
        .query_and_then([], |row| Ok((event_name(&row.get::<_, String>(0)?)?, unsigned(row.get(1)?)?)))?
        .collect::<Result<_, StoreError>>()?;
    Ok(Catalog { version: unsigned(version)?, entries, purges })
}

fn entry(row: &Row<'_>) -> Result<(EventName, CatalogEntry), StoreError> {
    let alias_of: Option<String> = row.get(4)?;
    let entry = CatalogEntry {
        description: row.get(1)?,
        inactive: row.get(2)?,
        deleted_at: text_time(row.get(3)?)?,
        alias_of: alias_of.as_deref().map(event_name).transpose()?,
    };
    Ok((event_name(&row.get::<_, String>(0)?)?, entry))
}

/// What the store's clock says; SQLite's own is that of its machine.
pub(super) fn now(connection: &Connection, clock: Option<&Clock>) -> Result<DateTime<Utc>, StoreError> {
    if let Some(clock) = clock {
        return Ok(DateTime::<Utc>::from(clock()).trunc_subsecs(6));
    }
    let sql = "select strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
    read_time(&connection.query_row(sql, [], |row| row.get::<_, String>(0))?)
}

/// As [`crate::store::admin::AdminStore::due_purges`].
pub(super) fn due_purges(
    connection: &mut Connection,
    clock: Option<&Clock>,
    grace: TimeDelta,
) -> Result<Vec<EventName>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now = now(&transaction, clock)?;
    let deleted = transaction
        .prepare_cached("select event, deleted_at, purge_due_since from catalog where deleted_at is not null")?
        .query_and_then([], |row| {
            let event = event_name(&row.get::<_, String>(0)?)?;
            Ok(Deleted { event, deleted_at: read_time(&row.get::<_, String>(1)?)?, marked: text_time(row.get(2)?)? })
        })?
        .collect::<Result<Vec<_>, StoreError>>()?;
    for entry in &deleted {
        if let Some(mark) = entry.mark(grace, now) {
            transaction
                .prepare_cached("update catalog set purge_due_since = ?2 where event = ?1")?
                .execute(params![entry.event.as_str(), mark.map(stored_time)])?;
        }
    }
    transaction.commit()?;
    Ok(deleted.into_iter().filter(|entry| entry.is_ripe(grace, now)).map(|entry| entry.event).collect())
}

pub(super) fn change(
    connection: &mut Connection,
    clock: Option<&Clock>,
    change: &Change,
    who: &str,
    at: DateTime<Utc>,
) -> Result<Changed, StoreError> {
    // Takes the database's only write lock, which is the catalog's as well.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Catalog { version, entries, .. } = catalog(&transaction)?;
    let now = now(&transaction, clock)?;
    let recorded = match change {
        Change::Undo { change } => recorded(&transaction, *change)?,
        _ => None,
    };
    let due_since = match change {
        Change::Purge { event, .. } => transaction
            .query_row("select purge_due_since from catalog where event = ?1", [event.as_str()], |row| row.get(0))
            .optional()?
            .flatten(),
        _ => None,
    };
    let mut state = State { entries, now, due_since: text_time(due_since)?, ..State::default() };
    for event in names_of(change, recorded.as_ref(), &state.entries) {
        let history = history(&transaction, &event)?;
        state.histories.insert(event, history);
    }
    let plan = match plan(change, recorded.as_ref(), &state, at) {
        Ok(plan) => plan,
        Err(reason) => return Ok(Changed::Refused { reason }),
    };
    let number = stored_count(version + 1)?;
    transaction.execute("update catalog_state set version = ?1", [number])?;
    write_counts(&transaction, &plan)?;
    write_catalog(&transaction, &plan)?;
    write_purges(&transaction, &plan, number, now)?;
    write_log(&transaction, &plan, number, who, at)?;
    transaction.commit()?;
    Ok(Changed::Done { change: number })
}

fn history(transaction: &Transaction<'_>, event: &EventName) -> Result<History, StoreError> {
    transaction
        .prepare_cached("select hour, count from hourly_counts where event = ?1 and count > 0")?
        .query_and_then([event.as_str()], |row| {
            let row = hourly_count(event.as_str(), row.get(0)?, row.get(1)?)?;
            Ok((row.hour, row.count))
        })?
        .collect()
}

fn recorded(transaction: &Transaction<'_>, change: i64) -> Result<Option<Recorded>, StoreError> {
    let sql = "select what, event, facts, undoable, undone_by, entries from admin_changes
         where change = ?1 and event is not null";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query([change])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let counts = transaction
        .prepare_cached("select event, hour, delta from changed_counts where change = ?1")?
        .query_and_then([change], |row| {
            let event = event_name(&row.get::<_, String>(0)?)?;
            Ok(CountChange { event, hour: hour(row.get(1)?)?, delta: row.get(2)? })
        })?
        .collect::<Result<_, StoreError>>()?;
    Ok(Some(Recorded {
        what: row.get(0)?,
        event: event_name(&row.get::<_, String>(1)?)?,
        facts: Facts::read(row.get::<_, Option<String>>(2)?.as_deref())?,
        undoable: row.get(3)?,
        undone_by: row.get(4)?,
        entries: read_entries(&row.get::<_, String>(5)?)?,
        counts,
    }))
}

fn write_counts(transaction: &Transaction<'_>, plan: &Plan) -> Result<(), StoreError> {
    let mut delete = transaction.prepare_cached("delete from hourly_counts where event = ?1 and hour = ?2")?;
    let mut upsert = transaction.prepare_cached(
        "insert into hourly_counts (event, hour, count) values (?1, ?2, ?3)
         on conflict (event, hour) do update set count = excluded.count",
    )?;
    for row in &plan.rows {
        let (event, hour) = (row.event.as_str(), stored_hour(row.hour));
        if row.count == 0 {
            delete.execute(params![event, hour])?;
        } else {
            upsert.execute(params![event, hour, stored_count(row.count)?])?;
        }
    }
    for (event, total) in &plan.totals {
        transaction.prepare_cached("delete from event_totals where event = ?1")?.execute([event.as_str()])?;
        if let Some(total) = total {
            let (first_hour, last_hour) = (stored_hour(total.first_hour), stored_hour(total.last_hour));
            transaction.prepare_cached(include_str!("totals_upsert.sql"))?.execute(params![
                event.as_str(),
                stored_count(total.count)?,
                first_hour,
                last_hour
            ])?;
        }
    }
    Ok(())
}

fn write_catalog(transaction: &Transaction<'_>, plan: &Plan) -> Result<(), StoreError> {
    let mut delete = transaction.prepare_cached("delete from catalog where event = ?1")?;
    let mut insert = transaction.prepare_cached(
        "insert into catalog (event, description, inactive, deleted_at, alias_of) values (?1, ?2, ?3, ?4, ?5)",
    )?;
    for change in &plan.entries {
        let (event, entry) = (change.event.as_str(), &change.after);
        delete.execute([event])?;
        if *entry != CatalogEntry::default() {
            insert.execute(params![
                event,
                entry.description,
                entry.inactive,
                entry.deleted_at.map(stored_time),
                entry.alias_of.as_ref().map(EventName::as_str),
            ])?;
        }
    }
    Ok(())
}

fn write_purges(transaction: &Transaction<'_>, plan: &Plan, number: i64, now: DateTime<Utc>) -> Result<(), StoreError> {
    if plan.line.purged.is_empty() {
        return Ok(());
    }
    transaction.execute("delete from purge_marks where at < ?1", [stored_time(now - REMEMBERED)])?;
    for event in &plan.line.purged {
        transaction
            .prepare_cached("insert or replace into purge_marks (event, version, at) values (?1, ?2, ?3)")?
            .execute(params![event.as_str(), number, stored_time(now)])?;
    }
    Ok(())
}

fn write_log(
    transaction: &Transaction<'_>,
    plan: &Plan,
    number: i64,
    who: &str,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let line = &plan.line;
    // What can't be undone needs no record of it.
    let (entries, counts) =
        if line.undoable { (plan.entries.as_slice(), plan.counts.as_slice()) } else { (&[][..], &[][..]) };
    transaction.execute(
        "insert into admin_changes (change, at, who, what, event, before, after, facts, entries, undoable)
         values (?1, ?2, ?3, ?4, ?5, '', '', ?6, ?7, ?8)",
        params![
            number,
            stored_time(at),
            who,
            line.what,
            line.event.as_str(),
            line.facts.stored()?,
            stored_entries(entries)?,
            line.undoable,
        ],
    )?;
    let mut insert = transaction
        .prepare_cached("insert into changed_counts (change, event, hour, delta) values (?1, ?2, ?3, ?4)")?;
    for count in counts {
        insert.execute(params![number, count.event.as_str(), stored_hour(count.hour), count.delta])?;
    }
    if let Some(undone) = line.undoes {
        transaction.execute("update admin_changes set undone_by = ?1 where change = ?2", [number, undone])?;
    }
    for event in &line.purged {
        transaction.execute("update admin_changes set undoable = 0 where event = ?1", [event.as_str()])?;
    }
    if plan.removed != 0 {
        let amount = removed_amount(plan.removed)?;
        let reason = format!("change {number}, {}, by {who}", line.what);
        transaction.execute(
            "insert into removals (id, amount, reason) values (?1, ?2, ?3)",
            params![random_identity()?, amount, reason],
        )?;
    }
    Ok(())
}

pub(super) fn changes(
    snapshot: &Transaction<'_>,
    events: &[EventName],
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<LoggedChange>, StoreError> {
    let of_events = if events.is_empty() { "?3 = '[]'" } else { "event in (select value from json_each(?3))" };
    let sql = format!(
        "select change, at, who, what, event, account, before, after, facts, undone_by, undoable from admin_changes
         where change < ?1 and {of_events} order by change desc limit ?2"
    );
    let events = serde_json::to_string(events)
        .map_err(|error| StoreError::Rejected(format!("names can't be asked for: {error}")))?;
    snapshot
        .prepare_cached(&sql)?
        .query_and_then(params![before.unwrap_or(i64::MAX), limit, events], |row| {
            let (event, undone_by): (Option<String>, Option<i64>) = (row.get(4)?, row.get(9)?);
            Ok(LoggedChange {
                change: row.get(0)?,
                at: read_time(&row.get::<_, String>(1)?)?,
                who: row.get(2)?,
                what: row.get(3)?,
                event: event.as_deref().map(event_name).transpose()?,
                account: row.get(5)?,
                told: Told::read(row.get::<_, Option<String>>(8)?.as_deref(), row.get(6)?, row.get(7)?)?,
                undone_by,
                can_undo: row.get::<_, bool>(10)? && undone_by.is_none(),
            })
        })?
        .collect()
}
