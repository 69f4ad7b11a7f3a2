//! The settings of the HTTP service.

use std::net::SocketAddr;

/// Section `[http]` of the configuration. Defaults and edge values: `config/default.toml`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Port 0 takes any free port. Default `127.0.0.1:8000`.
    pub listen: SocketAddr,
    /// Connections open at once. Default 10,000.
    pub connections_max: usize,
    /// Milliseconds for the headers of a request, and the idle time-out of a connection. Default 75,000.
    pub header_timeout_ms: u64,
    /// Bytes of all headers of one request; hyper takes no less than 8,192. Default 16,384.
    pub header_bytes_max: usize,
    /// Bytes of one body after inflating. Default 1 MiB.
    pub body_bytes_max: usize,
    /// Milliseconds after which a connection closes at the end of a request. Default one hour; 0: never.
    pub connection_age_max_ms: u64,
    /// Milliseconds that requests under way get at stop. Default 10,000; 0: none.
    pub drain_timeout_ms: u64,
    /// Milliseconds that `?ack=store` waits for the commit. Default 10,000.
    pub store_ack_timeout_ms: u64,
    /// Rows that one range query may return. Default 1,000,000.
    pub range_rows_max: usize,
    /// Pictures drawn at the same time. Default 2.
    pub renders_max: usize,
    /// Threads that serve requests. Default 0: one per core.
    pub workers: usize,
}
