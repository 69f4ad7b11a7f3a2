//! event-tracker counts events exactly once and reads them exactly.

pub mod admin;
pub mod app;
pub mod batch;
pub mod catalog;
pub mod commands;
pub mod committed;
pub mod config;
pub mod counts;
pub mod domain;
pub mod flusher;
pub mod histogram;
pub mod http;
pub mod journal;
pub mod names;
pub mod query;
pub mod store;
pub mod telemetry;
