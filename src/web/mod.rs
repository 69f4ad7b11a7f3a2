//! What both sides of HTTP share: the words of an answer, tables of routes, parameters, headers, and the options.

pub(crate) mod conditional;
pub(crate) mod cors;
pub(crate) mod envelope;
pub(crate) mod head;
pub mod options;
pub(crate) mod pace;
pub(crate) mod problem;
pub(crate) mod query_string;
pub(crate) mod room;
pub(crate) mod route;

pub use options::{IngestOptions, Options};
