//! The gate of the service, on connections that only note what leaves them.

mod gate;
mod wire;
pub mod worker;
