//! event-tracker counts events exactly once and reads them exactly.

pub mod batch;
pub mod counts;
pub mod domain;
pub mod flusher;
pub mod journal;
pub mod names;
pub mod store;
