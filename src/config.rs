//! The configuration: the options of every module, from layers that override each other.
//!
//! Weakest first: `config/default.toml` (compiled in), what it is under systemd or Kubernetes, the configuration file, the environment
//! (`EVENT_TRACKER__SECTION__KEY`), `PORT` and `DATABASE_URL`, the command line. Each layer is
//! checked by itself before it may override another, so a wrong value is never hidden by a stronger
//! one, and every complaint names the place to mend.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::ValueKind;
use serde::Deserialize;

use crate::{admin, flusher, journal, names, store, telemetry, web};

mod keys;
mod layer;

use keys::KEYS;
use layer::Layer;

/// Every key with its default and its meaning.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// Read when it exists and no other file is named.
pub const DEFAULT_FILE: &str = "config/event-tracker.toml";

const VARIABLE_PREFIX: &str = "EVENT_TRACKER__";

/// All settings of the service, each within its limits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of the journal and of the embedded database. Default `data`.
    pub data_dir: PathBuf,
    pub http: web::Options,
    pub journal: journal::Options,
    pub flush: flusher::Options,
    pub limits: names::Limits,
    pub ingest: web::IngestOptions,
    pub store: store::Options,
    pub admin: admin::Options,
    pub log: telemetry::Options,
}

/// Why there is no configuration: one line that says what, where, and what is expected instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {reason}")]
    File { path: String, reason: String },
    #[error("{origin}: unknown key {key}; did you mean {nearest}?")]
    UnknownKey { origin: String, key: String, nearest: String },
    #[error("{origin}: {key} = {value}; expected {expected}")]
    Value { key: String, value: String, origin: String, expected: String },
    /// The defaults and the options of the modules don't fit together; a test rules it out.
    #[error("the built-in configuration is broken: {0}")]
    Defaults(String),
}

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The full name of the setting, such as `http.listen`.
    pub key: &'static str,
    /// What people type, such as `--listen`.
    pub name: &'static str,
    pub value: String,
}

/// Where settings come from, besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Must exist. `None`: [`DEFAULT_FILE`], if that exists.
    pub file: Option<PathBuf>,
    pub environment: Vec<(OsString, OsString)>,
    pub flags: Vec<Flag>,
}

/// The value of one key after all layers, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setting {
    /// `name` or `section.name`.
    pub key: &'static str,
    /// As TOML writes it, passwords masked.
    pub value: String,
    /// `default`, the path of a file, `environment NAME`, or a flag.
    pub origin: String,
}

/// Loads the configuration and, in the order of `config/default.toml`, where each value is from.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(sources: &Sources) -> Result<(Config, Vec<Setting>), ConfigError> {
    let file = match &sources.file {
        Some(path) => Layer::from_file(path)?,
        None if Path::new(DEFAULT_FILE).try_exists().unwrap_or(true) => Layer::from_file(Path::new(DEFAULT_FILE))?,
        None => Layer::default(),
    };
    let merged = config::Config::builder()
        .add_source(Layer::from_toml(DEFAULTS, "default")?)
        .add_source(Layer::from_supervisor(&sources.environment)?)
        .add_source(file)
        .add_source(Layer::from_variables(&sources.environment)?)
        .add_source(Layer::from_platform(&sources.environment)?)
        .add_source(Layer::from_flags(&sources.flags)?)
        .build()
        .map_err(|error| ConfigError::Defaults(error.to_string()))?;
    let settings = KEYS.iter().filter_map(|key| setting(&merged.cache, key.name)).collect::<Vec<_>>();
    let config: Config = merged.try_deserialize().map_err(|error| ConfigError::Defaults(error.to_string()))?;
    if config.journal.bytes_max / 2 < config.journal.segment_bytes_max {
        let Setting { key, value, origin } =
            settings.into_iter().find(|setting| setting.key == "journal.bytes_max").unwrap_or_default();
        let expected = format!("at least twice journal.segment_bytes_max ({})", config.journal.segment_bytes_max);
        return Err(ConfigError::Value { key: key.to_owned(), value, origin, expected });
    }
    Ok((config, settings))
}

fn setting(merged: &config::Value, key: &'static str) -> Option<Setting> {
    let value = key.split('.').try_fold(merged, |value, name| match &value.kind {
        ValueKind::Table(table) => table.get(name),
        _ => None,
    })?;
    Some(Setting { key, value: shown(&value.kind), origin: value.origin().unwrap_or_default().to_owned() })
}

/// A value as TOML writes it, with its passwords masked: good for messages.
fn shown(value: &ValueKind) -> String {
    match value {
        ValueKind::String(text) => toml::Value::String(store::without_password(text)).to_string(),
        ValueKind::Float(number) => toml::Value::Float(*number).to_string(),
        ValueKind::Table(_) => "a section".to_owned(),
        ValueKind::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| shown(&value.kind)).collect();
            format!("[{}]", values.join(", "))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    #[test]
    fn what_modules_take_for_defaults_is_what_the_file_says() {
        let defaults: toml::Table = DEFAULTS.parse().unwrap();
        let http = toml::Table::try_from(web::Options::default()).unwrap();
        let store = toml::Table::try_from(store::Options::default()).unwrap();
        assert_eq!(defaults["http"], toml::Value::Table(http));
        let ingest = toml::Table::try_from(web::IngestOptions::default()).unwrap();
        assert_eq!(defaults["ingest"], toml::Value::Table(ingest));
        assert_eq!(defaults["store"], toml::Value::Table(store));
    }
}
