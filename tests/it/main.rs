//! One test binary for everything that runs against real files, real processes and a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_line;
mod commands;
mod config_files;
mod harness;
mod program;
mod store_contract;
mod transport;
