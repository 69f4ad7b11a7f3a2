//! The dashboard as its clients meet it, over a real embedded store, without a network.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod accounts;
mod changes;
pub(super) mod harness;
mod numbers;
mod pages;
