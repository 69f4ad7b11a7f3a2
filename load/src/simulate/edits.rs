//! Changes by administrators in a simulation.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use event_tracker::domain::{Ack, EventName, Hour, HourRange};
use event_tracker::store::admin::{Change, Changed};

use super::script::{CORRECTED, DELETED, Edit, MOVED, PURGED};
use super::world::World;
use crate::check::Outcome;

impl World {
    pub(super) fn edit(&mut self, machine: usize, edit: Edit) {
        let (shared, changes) = (Arc::clone(&self.shared), Arc::clone(&self.changes));
        let at = DateTime::<Utc>::from(self.wall(machine));
        let Some(running) = self.running(machine) else { return };
        let name = |text: &str| EventName::parse(text).ok();
        let change = match edit {
            Edit::Rename { from, into } => {
                name(MOVED[from]).zip(name(MOVED[into])).map(|(from, into)| Change::Move { from, into })
            }
            Edit::Undo => changes.lock().last().map(|change| Change::Undo { change: *change }),
            Edit::Delete => name(DELETED).map(|event| Change::Delete { event }),
            Edit::Purge => name(PURGED).map(|event| Change::Delete { event }),
            Edit::Correct { count } => return self.correct(machine, count, at),
        };
        let Some(change) = change else { return };
        let node = Arc::clone(&running.node);
        shared.figures().edits += 1;
        running.tasks.push(tokio::spawn(async move {
            let changed = node.catalog.change(change.clone(), "simulation", at).await;
            shared.say(format_args!("{change:?}: {changed:?}"));
            match (&changed, &change) {
                (Ok(Changed::Done { .. }), Change::Undo { change }) => changes.lock().retain(|known| known != change),
                (Ok(Changed::Done { change }), _) => changes.lock().push(*change),
                _ => {}
            }
            if matches!(edit, Edit::Purge) {
                let grace = TimeDelta::zero();
                for event in node.store.due_purges(grace).await.unwrap_or_default() {
                    if event.as_str() == PURGED {
                        let purged = node.catalog.change(Change::Purge { event, grace }, "simulation", at).await;
                        shared.say(format_args!("purged: {purged:?}"));
                    }
                }
            }
        }));
    }

    /// Sets the count of an hour that is over.
    fn correct(&mut self, machine: usize, count: u64, at: DateTime<Utc>) {
        let shared = Arc::clone(&self.shared);
        let hour = Hour::containing(at).plus(-1);
        let Some(running) = self.running(machine) else { return };
        let node = Arc::clone(&running.node);
        shared.figures().edits += 1;
        running.tasks.push(tokio::spawn(async move {
            let Ok(event) = EventName::parse(CORRECTED) else { return };
            let range = HourRange { first: hour, last: hour };
            let Ok(found) = node.query.event_hours(&event, range).await else { return };
            let expected = found.iter().map(|row| row.count).sum::<u64>();
            let delta = count.cast_signed() - expected.cast_signed();
            let number = shared.history().begin(CORRECTED, hour, delta, machine, shared.now());
            let reason = "simulated".to_owned();
            let change = Change::Correct { event, hour, expected, count, reason };
            let changed = node.catalog.change(change, "simulation", at).await;
            shared.say(format_args!("correction at {hour} by {delta}: {changed:?}"));
            let outcome = match changed {
                Ok(Changed::Done { .. }) => Outcome::Acknowledged(Ack::Store),
                Ok(Changed::Refused { .. }) => Outcome::NotCounted,
                Err(_) => Outcome::Unknown,
            };
            shared.history().end(number, outcome, shared.now());
        }));
    }
}
