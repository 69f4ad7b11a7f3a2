//! The settings of the HTTP service: the section `[http]` of the configuration; and `[ingest]`.

use serde::{Deserialize, Serialize};

/// Every key has a default; an unknown key is refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Address and port to listen on; port 0 takes a free one.
    pub listen: String,
    /// Open connections; beyond them those that have waited longest for their client end, and where all are busy,
    /// whoever comes is answered 503 and closed.
    pub connections_max: usize,
    /// Open connections of one client (an IPv4 address, an IPv6 /64), otherwise the same. 0: any number.
    pub connections_per_client_max: usize,
    /// How long a new connection may be silent.
    pub first_byte_timeout_ms: u64,
    /// How long a client may take to send a whole request head. It also runs between two requests of
    /// one connection and so is the idle time-out: keep it above that of a load balancer in front. And
    /// within it some of a body has to come, and some of an answer has to be taken.
    pub header_timeout_ms: u64,
    /// Largest request head (request line and headers) in bytes; beyond: 431.
    pub header_bytes_max: usize,
    /// Largest request body in bytes, inflated; beyond: 413.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies that are being read, inflated; beyond: 503. Large bodies leave a quarter
    /// of it to the first 64 KiB of others.
    pub bodies_bytes_max: usize,
    /// Web pages of which origins may call the API: `*` for any, or exact origins.
    pub cors_origins: Vec<String>,
    /// After this age a connection is closed once its current request is answered, so that clients
    /// spread anew over the nodes. 0: never.
    pub connection_age_max_ms: u64,
    /// How long the service says that it is not ready, and still takes requests, before it stops accepting.
    pub drain_delay_ms: u64,
    /// How long requests in flight may take to finish when the service stops.
    pub drain_timeout_ms: u64,
    /// How long a request with `ack=store` waits for the store.
    pub store_ack_timeout_ms: u64,
    /// Most rows one range answers with; beyond: 400.
    pub range_rows_max: usize,
    /// Bytes of all lists that are being read or sent; beyond: 503. Some 256 MiB more are kept for those who ask
    /// again.
    pub lists_bytes_max: usize,
    /// Pictures rendered at the same time, each on a thread of its own.
    pub renders_max: usize,
    /// Threads that serve requests. 0: one for each core.
    pub workers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8000".into(),
            connections_max: 10_000,
            connections_per_client_max: 2_500,
            first_byte_timeout_ms: 10_000,
            header_timeout_ms: 75_000,
            header_bytes_max: 16_384,
            body_bytes_max: 10_485_760,
            bodies_bytes_max: 67_108_864,
            cors_origins: vec!["*".into()],
            connection_age_max_ms: 3_600_000,
            drain_delay_ms: 0,
            drain_timeout_ms: 10_000,
            store_ack_timeout_ms: 10_000,
            range_rows_max: 1_000_000,
            lists_bytes_max: 268_435_456,
            renders_max: 2,
            workers: 0,
        }
    }
}

/// The other ways in which counts come.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestOptions {
    /// A path under which batches are taken as well, such as `/c`; empty: none.
    pub path_alias: String,
    /// Where StatsD lines are taken over UDP, such as `127.0.0.1:8125`; empty: nowhere.
    pub statsd_udp: String,
    /// The same over TCP.
    pub statsd_tcp: String,
}
