//! event-tracker counts events exactly once and reads them exactly.

pub mod domain;
pub mod store;
