//! The live node: an embedded store has one, and nobody else asks. It is remembered and not written, which
//! would wake the disk of an idle machine every few seconds.

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;

use crate::domain::WriterId;
use crate::store::nodes::LIVE;
use crate::store::{NodeReport, NodeSeen};

/// The last report and when it came.
#[derive(Default)]
pub(super) struct Reported(Mutex<Option<(NodeReport, DateTime<Utc>)>>);

impl Reported {
    pub(super) fn note(&self, report: NodeReport, now: DateTime<Utc>) {
        *self.0.lock() = Some((report, now));
    }

    pub(super) fn forget(&self, writer: WriterId) {
        self.0.lock().take_if(|(report, _)| report.writer == writer);
    }

    pub(super) fn live(&self, now: DateTime<Utc>) -> Vec<NodeSeen> {
        let reported = self.0.lock().clone();
        let seen = reported.map(|(report, at)| {
            let ago = |duration| at - TimeDelta::from_std(duration).unwrap_or_default();
            let reported = (now - at).to_std().unwrap_or_default();
            NodeSeen {
                node: report.node,
                writer: report.writer,
                host: report.host,
                address: report.address,
                version: report.version,
                started: ago(report.started),
                last_commit: report.last_commit.map(ago),
                reported,
                lag: report.waiting.map_or_else(Default::default, |waiting| waiting + reported),
            }
        });
        seen.filter(|seen| seen.reported <= LIVE).into_iter().collect()
    }
}
