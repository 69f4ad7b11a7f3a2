//! From a `postgres://` URL to the driver's configuration: what libpq knows and the driver does not
//! is understood here, and what nobody knows is left out with a warning, unless it asks for more safety.

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
        expect_encoded(url)?;
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut driver_query = Vec::new();
        let mut sslmode = None;
        let mut must_encrypt = false;
        let mut root_cert = (!options.tls_root_cert.is_empty()).then(|| PathBuf::from(&options.tls_root_cert));
        let mut ignored = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = percent_decode_str(value).decode_utf8_lossy();
            match (key, &*decoded) {
                ("sslmode", mode) => sslmode = Some(mode.to_owned()),
                // The spellings of other drivers and of old times.
                ("ssl" | "requiressl", "true" | "1" | "on" | "yes") => must_encrypt = true,
                ("ssl" | "requiressl", "false" | "0" | "off" | "no") => {}
                ("ssl" | "requiressl", _) => {
                    return Err(unsupported(key, "true or false is expected; better is sslmode"));
                }
                ("sslrootcert", file) => root_cert = Some(PathBuf::from(file)),
                ("target_session_attrs", "primary") => driver_query.push("target_session_attrs=read-write"),
                _ if DRIVER_KEYS.contains(&key) => driver_query.push(pair),
                _ => match refusal(key, &decoded) {
                    Some(reason) => return Err(unsupported(key, reason)),
                    None => ignored.push(key),
                },
            }
        }
        if !ignored.is_empty() {
            tracing::warn!(keys = ignored.join(", "), "the store's URL has parameters that are not used here");
        }
        // As in libpq: the system's authorities are of use only together with the name.
        let of_system = root_cert.as_deref().is_some_and(|file| file == "system");
        let sslmode = match sslmode {
            Some(mode) if must_encrypt && matches!(&*mode, "allow" | "prefer") => "require".to_owned(),
            Some(mode) if must_encrypt && mode == "disable" => {
                return Err(unsupported("ssl", "it contradicts sslmode=disable"));
            }
            Some(mode) if of_system && mode != "verify-full" => {
                return Err(unsupported("sslrootcert", "system goes with sslmode=verify-full only"));
            }
            Some(mode) => mode,
            None if of_system => "verify-full".to_owned(),
            None if must_encrypt => "require".to_owned(),
            None => "prefer".to_owned(),
        };

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

fn unsupported(key: &str, reason: &'static str) -> StoreUrlError {
    StoreUrlError::Parameter { key: key.to_owned(), reason }
}

/// Why a parameter that is not used here can't just be left out: it asks for more safety than there would
/// be without it.
fn refusal(key: &str, value: &str) -> Option<&'static str> {
    match (key, value) {
        ("sslcert" | "sslkey", _) | ("sslcertmode", "require") => Some("client certificates are not supported"),
        ("require_auth", _) => Some("it is not supported: leave it out; channel_binding=require is accepted"),
        ("sslcrl" | "sslcrldir", _) => Some("revocation lists are not read: leave it out"),
        ("ssl_min_protocol_version", "" | "TLSv1" | "TLSv1.1" | "TLSv1.2") => None,
        ("ssl_min_protocol_version", _) => Some("TLSv1.2 is accepted"),
        ("gssencmode", "require") => Some("disable or prefer is accepted"),
        ("sslcertmode" | "sslcompression" | "sslsni" | "ssl_max_protocol_version" | "sslpassword", _) => None,
        // Misspelt, it might be any of these.
        _ if key.to_lowercase().starts_with("ssl") => {
            Some("no such parameter is known; sslmode and sslrootcert are, in lower case")
        }
        _ => None,
    }
}

/// A special character in a password makes something else of what follows it: a host, a path, a query.
fn expect_encoded(url: &str) -> Result<(), StoreUrlError> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    // A value may hold one that means nothing.
    let harmless = |part: &str| {
        ["options=", "application_name=", "user=", "password=", "dbname="].iter().any(|key| part.starts_with(key))
    };
    let one_follows = || rest.split(['?', '&']).any(|part| part.contains('@') && !harmless(part));
    let is_unclear = match authority.matches('@').count() {
        0 => authority.contains(':') && one_follows(),
        count => count > 1,
    };
    if is_unclear || rest.contains('#') { Err(StoreUrlError::Unencoded) } else { Ok(()) }
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
        assert!(
            matches!(parse("postgres://h/db?sslcert=x.pem"), Err(StoreUrlError::Parameter { key, .. }) if key == "sslcert")
        );
    }

    #[test]
    fn a_special_character_in_a_password_is_refused_with_what_to_do() {
        for url in [
            "postgres://u:ge@heim@h/db",
            "postgres://u:ge/heim@h/db",
            "postgres://u:12/heim@h/db",
            "postgres://u:ge?heim@h/db",
            "postgres://u:12?sslmode=heim@h/db",
            "postgres://u:ge#heim@h/db",
            "postgres://u@h/db#heim",
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error, StoreUrlError::Unencoded, "{url}");
            assert!(error.to_string().contains("percent-encode the password"));
        }
        for url in [
            "postgres://u:p@h:1/db?options=-c%20x@y",
            "postgres://h:5432/db?user=u@h&password=x",
            "postgres://u:p@[::1]:1/db",
            "postgres:///db?host=/run&user=u",
        ] {
            parse(url).unwrap();
        }
    }

    #[test]
    fn what_asks_for_more_safety_is_honoured_or_refused() {
        for (query, mode) in [
            ("ssl=1", SslMode::Require),
            ("requiressl=1", SslMode::Require),
            ("ssl=true&sslmode=prefer", SslMode::Require),
            ("sslmode=verify-full&ssl=on", SslMode::Require),
            ("sslrootcert=system", SslMode::Require),
            ("ssl=0", SslMode::Prefer),
            ("ssl_min_protocol_version=TLSv1.2&gssencmode=prefer", SslMode::Prefer),
            ("channel_binding=require", SslMode::Prefer),
        ] {
            let target = parse(&format!("postgres://h/db?{query}")).unwrap();
            assert_eq!(target.config.get_ssl_mode(), mode, "{query}");
        }
        let trust = parse("postgres://h/db?sslrootcert=system").unwrap().trust;
        assert!(matches!(trust, Trust::IssuerAndName { .. }), "{trust:?}");
        for query in [
            "require_auth=scram-sha-256",
            "sslcrl=x.pem",
            "sslcrldir=x",
            "ssl_min_protocol_version=TLSv1.3",
            "gssencmode=require",
            "sslcertmode=require",
            "ssl=maybe",
            "ssl=1&sslmode=disable",
            "sslrootcert=system&sslmode=require",
            "SSLMODE=verify-full",
            "sslmodus=verify-full",
        ] {
            let error = parse(&format!("postgres://h/db?{query}")).unwrap_err();
            assert!(matches!(error, StoreUrlError::Parameter { .. }), "{query}: {error}");
        }
    }
}
