//! One test binary for everything that runs against real files, real processes and a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod admin_store;
mod api;
mod api_reads;
mod batches;
mod beside_a_service;
mod command_line;
mod commands;
mod config_files;
mod cors;
mod cross_origin;
mod dashboard;
mod descriptors;
mod exact_reads;
mod exactly_once;
mod faulty_disk;
mod folder_gone;
mod harness;
mod hours;
mod journal_format;
mod journal_full;
mod managed_events;
mod managed_under_load;
mod managed_under_load_tool;
mod outputs;
mod polling;
mod private_files;
mod program;
mod shutdown;
mod signals;
mod store_contract;
mod store_outage;
mod tidy;
mod transport;
mod unreadable;
