//! Every key of the configuration, in the order in which people read them, and what its value must be.

use std::fmt;
use std::net::SocketAddr;

use config::ValueKind;
use url::Url;

use crate::telemetry;

/// What a value must be. Its `Display` ends the sentence "expected …".
#[derive(Debug, Clone, Copy)]
pub(super) enum Expect {
    Address,
    /// Nothing is one, too.
    AddressOrNone,
    /// A path that no route has, or nothing.
    Alias,
    Boolean,
    /// Both included.
    Integer {
        min: i64,
        max: i64,
    },
    LogFilter,
    OneOf(&'static [&'static str]),
    /// A list of `*` alone or of origins.
    Origins,
    Path,
    StoreUrl,
    Text,
}

#[derive(Debug)]
pub(super) struct Key {
    /// `name` or `section.name`.
    pub(super) name: &'static str,
    pub(super) expect: Expect,
}

const fn key(name: &'static str, expect: Expect) -> Key {
    Key { name, expect }
}

const fn integer(name: &'static str, min: i64, max: i64) -> Key {
    key(name, Expect::Integer { min, max })
}

pub(super) static KEYS: &[Key] = &[
    key("data_dir", Expect::Path),
    key("http.listen", Expect::Address),
    integer("http.connections_max", 1, 1_000_000),
    integer("http.connections_per_client_max", 0, 1_000_000),
    integer("http.first_byte_timeout_ms", 100, 3_600_000),
    integer("http.header_timeout_ms", 100, 3_600_000),
    integer("http.header_bytes_max", 8_192, 1 << 20),
    integer("http.body_bytes_max", 1_024, 1 << 30),
    integer("http.bodies_bytes_max", 1_024, 1 << 40),
    key("http.cors_origins", Expect::Origins),
    integer("http.connection_age_max_ms", 0, 604_800_000),
    integer("http.drain_delay_ms", 0, 600_000),
    integer("http.drain_timeout_ms", 0, 600_000),
    integer("http.store_ack_timeout_ms", 1, 600_000),
    integer("http.range_rows_max", 1, 100_000_000),
    integer("http.lists_bytes_max", 1_048_576, 1 << 40),
    integer("http.renders_max", 1, 1_024),
    integer("http.workers", 0, 1_024),
    // `store` as the level of every request would make each wait for a flush.
    key("journal.ack", Expect::OneOf(&["memory", "journal", "disk"])),
    integer("journal.segment_bytes_max", 65_536, 1 << 40),
    integer("journal.bytes_max", 131_072, 1 << 50),
    integer("journal.keep_committed_ms", 0, 86_400_000),
    integer("journal.keep_committed_bytes_max", 0, 1 << 40),
    key("journal.accept_damage", Expect::Boolean),
    integer("flush.interval_ms", 1, 3_600_000),
    integer("flush.shutdown_timeout_ms", 0, 600_000),
    integer("flush.retry_backoff_max_ms", 10, 3_600_000),
    integer("limits.events_max", 1, 1_000_000_000),
    key("ingest.path_alias", Expect::Alias),
    key("ingest.statsd_udp", Expect::AddressOrNone),
    key("ingest.statsd_tcp", Expect::AddressOrNone),
    key("store.url", Expect::StoreUrl),
    integer("store.connect_timeout_ms", 1, 600_000),
    integer("store.statement_timeout_ms", 1, 3_600_000),
    integer("store.lock_timeout_ms", 1, 3_600_000),
    integer("store.keepalive_idle_ms", 1_000, 7_200_000),
    integer("store.tcp_user_timeout_ms", 1_000, 7_200_000),
    integer("store.read_connections", 1, 1_000),
    integer("store.partitions", 1, 64),
    integer("store.fold_interval_ms", 10, 3_600_000),
    integer("store.log_keep_ms", 0, 86_400_000),
    key("store.tls_accept_invalid_certs", Expect::Boolean),
    key("store.tls_root_cert", Expect::Text),
    integer("admin.session_idle_hours", 1, 8_760),
    integer("admin.session_hours", 1, 8_760),
    integer("admin.sessions_max", 1, 1_000),
    integer("admin.streams_max", 0, 100_000),
    key("admin.cookie_secure", Expect::OneOf(&["auto", "always", "never"])),
    key("admin.trust_proxy", Expect::Boolean),
    integer("admin.delete_grace_hours", 0, 8_760),
    key("log.format", Expect::OneOf(&["human", "json"])),
    key("log.level", Expect::LogFilter),
];

impl Key {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The known key that looks most like `name`, which may lack its section.
    pub(super) fn nearest(name: &str) -> &'static Self {
        let distance = |key: &Key| {
            let bare = key.name.rsplit('.').next().unwrap_or(key.name);
            strsim::damerau_levenshtein(name, key.name).min(strsim::damerau_levenshtein(name, bare))
        };
        KEYS.iter().min_by_key(|key| distance(key)).unwrap_or(&KEYS[0])
    }

    /// `EVENT_TRACKER__SECTION__KEY`.
    pub(super) fn variable(&self) -> String {
        format!("{}{}", super::VARIABLE_PREFIX, self.name.replace('.', "__").to_uppercase())
    }
}

pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

impl Expect {
    /// What a text from the environment or the command line means where this is expected. A text that
    /// can't be it stays a text, for [`Expect::accepts`] to refuse.
    pub(super) fn read(self, text: &str) -> ValueKind {
        let read = match self {
            Self::Boolean => text.parse().ok().map(ValueKind::Boolean),
            Self::Integer { .. } => text.parse().ok().map(ValueKind::I64),
            Self::Origins => {
                // As in a file, or simply separated by commas.
                let bare =
                    || text.split(',').map(|origin| origin.trim().to_owned()).filter(|o| !o.is_empty()).collect();
                let origins: Vec<String> = serde_json::from_str(text).unwrap_or_else(|_| bare());
                Some(ValueKind::Array(origins.into_iter().map(config::Value::from).collect()))
            }
            _ => None,
        };
        read.unwrap_or_else(|| ValueKind::String(text.to_owned()))
    }

    pub(super) fn accepts(self, value: &ValueKind) -> bool {
        match (self, value) {
            (Self::Boolean, ValueKind::Boolean(_)) | (Self::Text, ValueKind::String(_)) => true,
            (Self::Integer { min, max }, ValueKind::I64(number)) => (min..=max).contains(number),
            (Self::Address, ValueKind::String(text)) => text.parse::<SocketAddr>().is_ok(),
            (Self::AddressOrNone, ValueKind::String(text)) => text.is_empty() || text.parse::<SocketAddr>().is_ok(),
            (Self::Alias, ValueKind::String(text)) => text.is_empty() || is_alias(text),
            (Self::LogFilter, ValueKind::String(text)) => telemetry::is_filter(text),
            (Self::OneOf(names), ValueKind::String(text)) => names.contains(&text.as_str()),
            (Self::Path, ValueKind::String(text)) => !text.is_empty(),
            (Self::Origins, ValueKind::Array(origins)) => are_origins(origins),
            (Self::StoreUrl, ValueKind::String(text)) => is_store_url(text),
            _ => false,
        }
    }
}

fn are_origins(list: &[config::Value]) -> bool {
    let is_any = |value: &config::Value| matches!(&value.kind, ValueKind::String(text) if text == "*");
    let is_origin = |value: &config::Value| match &value.kind {
        // As a browser writes it: without a path, in lower case, without the scheme's own port.
        ValueKind::String(text) => Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == *text),
        _ => false,
    };
    list.iter().all(is_origin) || (list.len() == 1 && is_any(&list[0]))
}

/// One segment or more, of letters that are in a path as they are.
fn is_alias(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut segments = text.split('/');
    segments.next() == Some("")
        && !["/api", "/admin", "/livez", "/readyz"]
            .iter()
            .any(|ours| text.strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        && segments.all(|text| !text.is_empty() && text != "." && text != ".." && text.bytes().all(is_plain))
}

fn is_store_url(text: &str) -> bool {
    let has_rest = |scheme: &str| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty());
    text.is_empty() || ["sqlite:", "postgres://", "postgresql://"].into_iter().any(has_rest)
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("an IP address and a port, such as 127.0.0.1:8000 or [::]:8000"),
            Self::AddressOrNone => f.write_str("an IP address and a port, such as 127.0.0.1:8125, or nothing"),
            Self::Alias => f.write_str("a path that is none of the service's own, such as /c, or nothing"),
            Self::Boolean => f.write_str("true or false"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::LogFilter => f.write_str("off, error, warn, info, debug, trace or a list of module=level"),
            Self::OneOf(names) => match names.split_last() {
                Some((last, [])) => f.write_str(last),
                Some((last, others)) => write!(f, "{} or {last}", others.join(", ")),
                None => Ok(()),
            },
            Self::Origins => {
                f.write_str(r#"["*"], or a list of origins as browsers send them, such as ["https://shop.example"]"#)
            }
            Self::Path => f.write_str("the path of a folder"),
            Self::StoreUrl => {
                f.write_str("postgres://USER:PASSWORD@HOST/NAME, sqlite:PATH, or nothing for SQLite in data_dir")
            }
            Self::Text => f.write_str("a text"),
        }
    }
}
