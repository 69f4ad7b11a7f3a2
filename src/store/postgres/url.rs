//! From a `postgres://` URL to the driver's configuration: what libpq knows and the driver does not
//! is understood here, and what nobody knows is left out with a warning.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::tls::Trust;
use crate::store::{Options, StoreUrlError};

/// Query keys that the driver understands by itself.
const DRIVER_KEYS: [&str; 15] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "keepalives",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// Where to connect to, whom to believe there, and what to call it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) trust: Trust,
    /// `PostgreSQL at host/database`.
    pub(super) label: String,
}

impl Target {
    pub(super) fn parse(url: &str, options: &Options) -> Result<Self, StoreUrlError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut driver_query = Vec::new();
        let mut sslmode = "prefer".to_owned();
        let mut root_cert = (!options.tls_root_cert.is_empty()).then(|| PathBuf::from(&options.tls_root_cert));
        let mut ignored = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = percent_decode_str(value).decode_utf8_lossy();
            match key {
                "sslmode" => sslmode = decoded.into_owned(),
                // The spelling of other drivers.
                "ssl" if decoded == "true" => sslmode = "require".into(),
                "sslrootcert" => root_cert = Some(PathBuf::from(decoded.as_ref())),
                "sslcert" => return Err(unsupported("sslcert", "client certificates are not supported")),
                "sslkey" => return Err(unsupported("sslkey", "client certificates are not supported")),
                "target_session_attrs" if decoded == "primary" => {
                    driver_query.push("target_session_attrs=read-write");
                }
                key if DRIVER_KEYS.contains(&key) => driver_query.push(pair),
                _ => ignored.push(key),
            }
        }
        if !ignored.is_empty() {
            tracing::warn!(keys = ignored.join(", "), "the store's URL has parameters that are not used here");
        }

        let mut config: Config = format!("{base}?{}", driver_query.join("&"))
            .parse()
            .map_err(|error: tokio_postgres::Error| StoreUrlError::Malformed(error_text(&error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(StoreUrlError::Malformed("the host is missing".into()));
        }
        let verified_by_file = root_cert.is_some();
        let trust = match sslmode.as_str() {
            "disable" | "allow" | "prefer" => Trust::Anyone,
            // As in libpq: with a file of trusted certificates, `require` means `verify-ca`.
            "require" if !verified_by_file => Trust::Anyone,
            "require" | "verify-ca" => Trust::Issuer { root_cert },
            "verify-full" => Trust::IssuerAndName { root_cert },
            other => return Err(StoreUrlError::SslMode(other.to_owned())),
        };
        config
            .ssl_mode(match sslmode.as_str() {
                "disable" => SslMode::Disable,
                // `allow` prefers plain text; encrypting where the server can is as compatible and safer.
                "allow" | "prefer" => SslMode::Prefer,
                _ => SslMode::Require,
            })
            .connect_timeout(Duration::from_millis(options.connect_timeout_ms))
            .keepalives_idle(Duration::from_millis(options.keepalive_idle_ms))
            .tcp_user_timeout(Duration::from_millis(options.tcp_user_timeout_ms));
        if config.get_application_name().is_none() {
            config.application_name("event-tracker");
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            // After a failover the old primary may still answer, but read-only.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if has_only_sockets(&config) {
            // As in libpq: a Unix socket is never encrypted.
            config.ssl_mode(SslMode::Disable);
        }
        let trust = if options.tls_accept_invalid_certs { Trust::Anyone } else { trust };
        let label = label(&config);
        Ok(Self { config, trust, label })
    }
}

fn unsupported(key: &'static str, reason: &'static str) -> StoreUrlError {
    StoreUrlError::Parameter { key, reason }
}

/// The driver's reasons name keys, never values.
fn error_text(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn has_only_sockets(config: &Config) -> bool {
    !config.get_hosts().is_empty() && config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)))
}

fn label(config: &Config) -> String {
    let ports = config.get_ports();
    let names: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let names = if names.is_empty() { config.get_hostaddrs().iter().map(ToString::to_string).collect() } else { names };
    let hosts: Vec<String> = names
        .into_iter()
        .enumerate()
        .map(|(index, name)| match ports.get(index).or(ports.first()) {
            None | Some(5432) => name,
            Some(port) => format!("{name}:{port}"),
        })
        .collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or("the default database");
    format!("PostgreSQL at {}/{database}", hosts.join(","))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, StoreUrlError> {
        Target::parse(url, &Options::default())
    }

    #[test]
    fn every_sslmode_of_libpq_is_honoured() {
        let file = || Some(PathBuf::from("ca.pem"));
        for (query, mode, trust) in [
            ("", SslMode::Prefer, Trust::Anyone),
            ("?sslmode=disable", SslMode::Disable, Trust::Anyone),
            ("?sslmode=allow", SslMode::Prefer, Trust::Anyone),
            ("?sslmode=prefer", SslMode::Prefer, Trust::Anyone),
            ("?sslmode=require", SslMode::Require, Trust::Anyone),
            ("?ssl=true", SslMode::Require, Trust::Anyone),
            ("?sslmode=require&sslrootcert=ca.pem", SslMode::Require, Trust::Issuer { root_cert: file() }),
            ("?sslmode=verify-ca", SslMode::Require, Trust::Issuer { root_cert: None }),
            ("?sslrootcert=ca.pem&sslmode=verify-full", SslMode::Require, Trust::IssuerAndName { root_cert: file() }),
        ] {
            let target = parse(&format!("postgres://u@h/db{query}")).unwrap();
            assert_eq!((target.config.get_ssl_mode(), target.trust), (mode, trust), "{query}");
        }
        assert_eq!(parse("postgres://h/db?sslmode=full").unwrap_err(), StoreUrlError::SslMode("full".into()));
    }

    #[test]
    fn certificates_go_unverified_only_when_asked_for() {
        let options = Options { tls_accept_invalid_certs: true, ..Options::default() };
        let target = Target::parse("postgres://h/db?sslmode=verify-full", &options).unwrap();
        assert_eq!((target.config.get_ssl_mode(), target.trust), (SslMode::Require, Trust::Anyone));
    }

    #[test]
    fn a_url_of_any_common_form_names_its_database() {
        for (url, label) in [
            ("postgres://u:p@db.example/events", "PostgreSQL at db.example/events"),
            ("postgresql://u:p@db.example:6432/events?pgbouncer=true", "PostgreSQL at db.example:6432/events"),
            ("postgres://u@a:1,b:2/events?target_session_attrs=primary", "PostgreSQL at a:1,b:2/events"),
            ("postgres://u@%2Fvar%2Frun/events", "PostgreSQL at /var/run/events"),
            ("postgres:///events?host=/var/run&user=u", "PostgreSQL at /var/run/events"),
            ("postgres://u@[::1]:5433/events", "PostgreSQL at ::1:5433/events"),
            ("postgres://u@h?connect_timeout=3&statement_cache_mode=describe", "PostgreSQL at h/u"),
        ] {
            assert_eq!(parse(url).unwrap().label, label, "{url}");
        }
    }

    #[test]
    fn a_password_is_decoded_and_never_in_an_error() {
        let target = parse("postgres://u:ge%40heim@h/db").unwrap();
        assert_eq!(target.config.get_password(), Some(b"ge@heim".as_slice()));
        assert!(!target.label.contains("ge@heim"));
        for url in ["postgres://u:geheim@h:port/db", "postgres://u:geheim@h/db?sslmode=x", "postgres://u:geheim"] {
            let error = parse(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
        }
    }

    #[test]
    fn a_unix_socket_is_never_encrypted() {
        let target = parse("postgres:///db?host=/run/pg&sslmode=verify-full").unwrap();
        assert_eq!(target.config.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn client_certificates_are_refused_and_not_ignored() {
        assert!(matches!(parse("postgres://h/db?sslcert=x.pem"), Err(StoreUrlError::Parameter { key: "sslcert", .. })));
    }
}
