//! The dashboard in real Chromium. A severe message on the console, a breach of the content security
//! policy among them, fails any of these.

mod accounts;
mod by_hand;
mod hostile_names;
mod live;
mod looks;
mod managing;
mod reading;

use chrono::{Duration, Utc};

/// The hour that began so many hours ago, as `YYYYMMDDHH`.
pub fn hours_ago(hours: i64) -> String {
    (Utc::now() - Duration::hours(hours)).format("%Y%m%d%H").to_string()
}
