//! The dashboard in real Chromium. A severe message on the console, a breach of the content security
//! policy among them, fails any of these.

mod accounts;
mod by_hand;
mod hostile_names;
mod live;
mod looks;
mod managing;
mod reading;

use crate::harness::hours_ago;
