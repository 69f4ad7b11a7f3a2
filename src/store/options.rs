//! The settings of the store: the section `[store]` of the configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::Partitions;

/// How the store is reached. Serialised in full, password included; `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Empty: SQLite in the data folder. Else `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`.
    pub url: String,
    /// Longest wait for a connection to PostgreSQL, encryption and login included.
    pub connect_timeout_ms: u64,
    /// Longest run of one statement; PostgreSQL itself ends it then.
    pub statement_timeout_ms: u64,
    /// Longest wait for a lock that another session holds.
    pub lock_timeout_ms: u64,
    /// Idle time after which TCP asks whether the other side still lives.
    pub keepalive_idle_ms: u64,
    /// Longest time that sent data may stay unconfirmed by TCP.
    pub tcp_user_timeout_ms: u64,
    /// Encrypt, but believe any certificate, whatever `sslmode` says.
    pub tls_accept_invalid_certs: bool,
    /// PEM file with the certificates to trust; the same as `sslrootcert` in the URL.
    /// Empty: the well-known authorities and the system's.
    pub tls_root_cert: String,
    /// Connections for reads, besides the one for commits.
    pub read_connections: usize,
    /// How many the store is cut into when it is made, 1 to [`Partitions::MAX`]; later it must be the same number.
    /// More than one is for PostgreSQL only: each has a connection for its commits and is folded by itself.
    pub partitions: u16,
    /// Time from one fold to the next. While the log is long, reads of it take longer.
    pub fold_interval_ms: u64,
    /// How long an entry of the log is kept after its commit: for reads that catch up, and for batches that
    /// are delivered twice and have to be compared.
    pub log_keep_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: String::new(),
            connect_timeout_ms: 5_000,
            statement_timeout_ms: 30_000,
            lock_timeout_ms: 10_000,
            keepalive_idle_ms: 30_000,
            tcp_user_timeout_ms: 30_000,
            tls_accept_invalid_certs: false,
            tls_root_cert: String::new(),
            read_connections: 4,
            partitions: 1,
            fold_interval_ms: 2_000,
            log_keep_ms: 600_000,
        }
    }
}

impl Options {
    /// Longest wait for the answer to one statement, measured here: when it has passed, the connection is
    /// dropped. Longer than the database's own limit, so that a slow statement is told from a dead database.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.saturating_add(self.statement_timeout_ms))
    }

    /// The most connections that it takes: for commits, folds, looks, administrators and reads.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        2 * usize::from(self.partitions) + 3 + self.read_connections
    }

    pub(super) fn partitions(&self) -> Result<Partitions, StoreUrlError> {
        Partitions::new(self.partitions).ok_or(StoreUrlError::Partitions(self.partitions))
    }

    /// The SQLite file that `url` names; `None` when it names PostgreSQL.
    pub(super) fn sqlite_path(&self, data_dir: &Path) -> Result<Option<PathBuf>, StoreUrlError> {
        let path = self.named_path(data_dir)?;
        if path.is_some() && self.partitions()? != Partitions::ONE {
            return Err(StoreUrlError::PartitionsOfSqlite(self.partitions));
        }
        Ok(path)
    }

    fn named_path(&self, data_dir: &Path) -> Result<Option<PathBuf>, StoreUrlError> {
        if self.url.is_empty() {
            return Ok(Some(data_dir.join("events.sqlite")));
        }
        if let Some(path) = self.url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" | ":memory:" => Err(StoreUrlError::NoSqliteFile),
                path => Ok(Some(PathBuf::from(path))),
            };
        }
        match self.url.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Ok(None),
            _ => Err(StoreUrlError::UnknownScheme),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured, so that a new field can't be forgotten here.
        let Self {
            url,
            connect_timeout_ms,
            statement_timeout_ms,
            lock_timeout_ms,
            keepalive_idle_ms,
            tcp_user_timeout_ms,
            tls_accept_invalid_certs,
            tls_root_cert,
            read_connections,
            partitions,
            fold_interval_ms,
            log_keep_ms,
        } = self;
        f.debug_struct("Options")
            .field("url", &without_password(url))
            .field("connect_timeout_ms", connect_timeout_ms)
            .field("statement_timeout_ms", statement_timeout_ms)
            .field("lock_timeout_ms", lock_timeout_ms)
            .field("keepalive_idle_ms", keepalive_idle_ms)
            .field("tcp_user_timeout_ms", tcp_user_timeout_ms)
            .field("tls_accept_invalid_certs", tls_accept_invalid_certs)
            .field("tls_root_cert", tls_root_cert)
            .field("read_connections", read_connections)
            .field("partitions", partitions)
            .field("fold_interval_ms", fold_interval_ms)
            .field("log_keep_ms", log_keep_ms)
            .finish()
    }
}

/// Why a `store.url` can't be used. Never repeats the URL, since that may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    #[error(
        "the store's URL has no form that is known: expected nothing (SQLite in the data folder), \
         sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE"
    )]
    UnknownScheme,
    #[error("the store's URL names no file: expected sqlite:PATH")]
    NoSqliteFile,
    #[error("store.partitions = {0}: a store has 1 to {max} partitions", max = Partitions::MAX)]
    Partitions(u16),
    #[error("store.partitions = {0}: only PostgreSQL can be cut into partitions, and store.url names SQLite")]
    PartitionsOfSqlite(u16),
    #[error("the store's PostgreSQL URL can't be read: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE ({0})")]
    Malformed(String),
    #[error("the store's URL has sslmode={0}: expected disable, allow, prefer, require, verify-ca or verify-full")]
    SslMode(String),
    #[error(
        "the user or the password in the store's URL holds a special character: percent-encode the password \
         (@ as %40, : as %3A, / as %2F, ? as %3F, # as %23)"
    )]
    Unencoded,
    #[error("the store's URL has {key}: {reason}")]
    Parameter { key: String, reason: &'static str },
    #[error("the trusted certificates can't be read: {0}")]
    RootCertificates(String),
}

/// The URL as it may be shown: passwords, in front of the host or in the query, become `***`. Where
/// a stray character makes it unclear how far a password reaches, rather too much is hidden.
#[must_use]
pub fn without_password(url: &str) -> String {
    without_user_password(&without_password_values(url))
}

/// Schemes that may stand in front of a user without `//`; anything else there may be the user.
const SCHEMES: [&str; 4] = ["postgresql:", "postgres:", "sqlite:", "file:"];

/// Whatever the scheme is and however it is spelt: from the first colon to the last `@`.
fn without_user_password(url: &str) -> String {
    let Some(at) = url.rfind('@') else { return url.to_owned() };
    let before = &url[..at];
    let start = match before.find("//") {
        Some(slashes) => slashes + "//".len(),
        None => SCHEMES.iter().find(|scheme| before.starts_with(**scheme)).map_or(0, |scheme| scheme.len()),
    };
    match before[start..].find(':') {
        Some(colon) => format!("{}***{}", &before[..=start + colon], &url[at..]),
        None => url.to_owned(),
    }
}

/// The values of parameters that are called something like `password`, in a query or separated by spaces.
fn without_password_values(url: &str) -> String {
    let is_separator = |c: char| matches!(c, '?' | '&' | ';' | '#') || c.is_whitespace();
    let mut shown = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(equals) = rest.find('=') {
        let (before, value) = rest.split_at(equals + 1);
        shown.push_str(before);
        let key = before[..equals].rsplit(is_separator).next().unwrap_or_default();
        let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().to_lowercase();
        let is_secret = ["pass", "pwd", "secret"].iter().any(|word| key.contains(word));
        rest = value;
        if is_secret {
            shown.push_str("***");
            rest = &value[secret_length(value)..];
        }
    }
    shown + rest
}

/// Up to what is certainly the next parameter.
fn secret_length(value: &str) -> usize {
    if let Some(quoted) = value.strip_prefix('\'') {
        return quoted.find('\'').map_or(value.len(), |end| end + 2);
    }
    let begins_parameter = |rest: &str| {
        let key: &str = rest.split(['=', '&', '@', '/', ' ']).next().unwrap_or_default();
        rest[key.len()..].starts_with('=')
    };
    let ends = value.match_indices(['&', ' ']).map(|(at, _)| at);
    ends.into_iter().find(|at| begins_parameter(&value[at + 1..])).unwrap_or(value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(url: &str) -> Result<Option<PathBuf>, StoreUrlError> {
        Options { url: url.into(), ..Options::default() }.sqlite_path(Path::new("data"))
    }

    #[test]
    fn the_url_decides_which_store_it_is() {
        assert_eq!(path_of(""), Ok(Some("data/events.sqlite".into())));
        assert_eq!(path_of("sqlite:a/b.db"), Ok(Some("a/b.db".into())));
        assert_eq!(path_of("sqlite:///a/b.db"), Ok(Some("/a/b.db".into())));
        assert_eq!(path_of("postgres://h/db"), Ok(None));
        assert_eq!(path_of("postgresql://h/db"), Ok(None));
        assert_eq!(path_of("sqlite:"), Err(StoreUrlError::NoSqliteFile));
        assert_eq!(path_of("sqlite::memory:"), Err(StoreUrlError::NoSqliteFile));
        for url in ["mysql://h/db", "events.sqlite", "postgres", "postgresq://h"] {
            assert_eq!(path_of(url), Err(StoreUrlError::UnknownScheme), "{url}");
        }
    }

    #[test]
    fn no_password_is_ever_shown() {
        for (url, shown) in [
            ("postgres://u:geheim@h/db", "postgres://u:***@h/db"),
            ("postgres://u:ge@he/i?m@h:1/db?sslmode=require", "postgres://u:***@h:1/db?sslmode=require"),
            ("postgres://u@h/db?password=geheim&sslmode=require", "postgres://u@h/db?password=***&sslmode=require"),
            ("postgres://h/db?user=u&password=geheim", "postgres://h/db?user=u&password=***"),
            ("postgres://u@h/db?password=ge@heim", "postgres://u@h/db?password=***"),
            ("postgres://u:geheim@h1:1,h2:2/db", "postgres://u:***@h1:1,h2:2/db"),
            ("postgres://h/db?sslPassword=geheim&Password=geheim", "postgres://h/db?sslPassword=***&Password=***"),
            ("host=h password=geheim user=u", "host=h password=*** user=u"),
            ("mysql://u:geheim@", "mysql://u:***@"),
            ("postgres://u@h:5432/db", "postgres://u@h:5432/db"),
            ("sqlite:data/x.sqlite", "sqlite:data/x.sqlite"),
            ("postgres//u:geheim@h/db", "postgres//u:***@h/db"),
            ("postgres:u:geheim@h/db", "postgres:u:***@h/db"),
            ("postgres:/u:geheim@h/db", "postgres:/u:***@h/db"),
            ("u:geheim@h/db", "u:***@h/db"),
            ("postgers://u:geheim@h/db", "postgers://u:***@h/db"),
            ("sqlite://u:geheim@h/db", "sqlite://u:***@h/db"),
            ("sqlite:u:geheim@h/db", "sqlite:u:***@h/db"),
            ("sqlite:data/a@b.sqlite", "sqlite:data/a@b.sqlite"),
            ("postgres://u:ge#heim@h/db", "postgres://u:***@h/db"),
            ("postgres://u:geheim#x@geheim/y@h/db", "postgres://u:***@h/db"),
            ("postgres://u@h:1/db?pass=geheim", "postgres://u@h:1/db?pass=***"),
            ("postgres://u@h:1/db?password=x@geheim", "postgres://u@h:1/db?password=***"),
            (
                "postgres://u@h:1/db?password=x&geheim&sslmode=require",
                "postgres://u@h:1/db?password=***&sslmode=require",
            ),
            ("postgres://u@h/db?p%61ssword=geheim", "postgres://u@h/db?p%61ssword=***"),
            ("postgres://u@h/db?passwd=geheim;pwd=geheim", "postgres://u@h/db?passwd=***"),
            ("host=h password='x geheim' user=u", "host=h password=*** user=u"),
            ("", ""),
        ] {
            assert_eq!(without_password(url), shown);
            let options = Options { url: url.into(), ..Options::default() };
            assert!(!format!("{options:?}").contains("geheim"));
        }
    }
}
