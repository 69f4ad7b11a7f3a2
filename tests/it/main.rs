//! One test binary for everything that runs against real files, real processes and a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;
mod store_contract;
