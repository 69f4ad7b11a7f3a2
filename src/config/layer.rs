//! One layer of the configuration: checked values and where they came from.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use config::{FileFormat, Format, Map, Value, ValueKind};

use super::keys::{Key, is_section};
use super::{ConfigError, Flag, VARIABLE_PREFIX, shown};

/// Values by full key name. Nothing unknown and nothing unfit gets into a layer.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer(Map<String, Value>);

impl Layer {
    pub(super) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File { path: origin.clone(), reason: format!("can't be read: {error}") })?;
        Self::from_toml(&text, &origin)
    }

    pub(super) fn from_toml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let table = FileFormat::Toml.parse(None, text).map_err(|error| {
            // The parser draws a picture of the place: its first line says where, its last says what.
            let error = error.to_string();
            let lines: Vec<&str> = error.lines().collect();
            let reason = match lines.as_slice() {
                [place, .., what] => format!("{}: {what}", place.to_lowercase().replace("toml", "TOML")),
                _ => error.trim().to_owned(),
            };
            ConfigError::File { path: origin.to_owned(), reason }
        })?;
        let mut leaves = Vec::new();
        flatten("", table, &mut leaves);
        leaves.sort_by(|left, right| left.0.cmp(&right.0));
        let mut layer = Self::default();
        for (name, value) in leaves {
            match Key::named(&name) {
                Some(key) => layer.set(key, value, origin)?,
                None if is_section(&name) => {
                    let expected = format!("a section: [{name}] and its keys below it");
                    return Err(ConfigError::Value {
                        key: name,
                        value: shown(&value),
                        origin: origin.into(),
                        expected,
                    });
                }
                None => {
                    let nearest = Key::nearest(&name).name.to_owned();
                    return Err(ConfigError::UnknownKey { origin: origin.to_owned(), key: name, nearest });
                }
            }
        }
        Ok(layer)
    }

    /// `EVENT_TRACKER__SECTION__KEY`. Variables that begin with `EVENT_TRACKER_` and one underline are
    /// not ours: Kubernetes sets such for a service of that name.
    pub(super) fn from_variables(environment: &[(OsString, OsString)]) -> Result<Self, ConfigError> {
        let mut ours: Vec<(String, &OsString)> = environment
            .iter()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .collect();
        ours.sort();
        let mut layer = Self::default();
        for (name, value) in ours {
            let known = name[VARIABLE_PREFIX.len()..].to_lowercase().replace("__", ".");
            match Key::named(&known).filter(|key| key.variable() == name) {
                Some(key) => layer.set_text(key.name, value, &format!("environment {name}"))?,
                None => {
                    let nearest = Key::nearest(&known).variable();
                    return Err(ConfigError::UnknownKey { origin: "environment".to_owned(), key: name, nearest });
                }
            }
        }
        Ok(layer)
    }

    /// The names that hosting platforms set: `PORT` and `DATABASE_URL`. Empty counts as unset.
    pub(super) fn from_platform(environment: &[(OsString, OsString)]) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for (name, value) in environment.iter().filter(|(_, value)| !value.is_empty()) {
            if name == "DATABASE_URL" {
                layer.set_text("store.url", value, "environment DATABASE_URL")?;
            } else if name == "PORT" {
                let mut address = OsString::from("0.0.0.0:");
                address.push(value);
                layer.set_text("http.listen", &address, "environment PORT")?;
            }
        }
        Ok(layer)
    }

    /// Defaults of a service that systemd or Kubernetes runs: there others have to notice that it stops.
    pub(super) fn from_supervisor(environment: &[(OsString, OsString)]) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        let supervisor = ["NOTIFY_SOCKET", "KUBERNETES_SERVICE_HOST"]
            .into_iter()
            .find(|known| environment.iter().any(|(name, value)| name == known && !value.is_empty()));
        if let Some(name) = supervisor {
            layer.set_text("http.drain_delay_ms", OsStr::new("5000"), &format!("default where {name} is set"))?;
        }
        Ok(layer)
    }

    pub(super) fn from_flags(flags: &[Flag]) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for flag in flags {
            layer.set_text(flag.key, OsStr::new(&flag.value), flag.name)?;
        }
        Ok(layer)
    }

    fn set_text(&mut self, name: &str, value: &OsStr, origin: &str) -> Result<(), ConfigError> {
        let key = Key::named(name).ok_or_else(|| ConfigError::Defaults(format!("there is no key {name}")))?;
        // A text that is not UTF-8 is refused rather than mended, and not shown: it may be a password.
        let text = value.to_str().ok_or_else(|| ConfigError::Value {
            key: key.name.to_owned(),
            value: "***".to_owned(),
            origin: origin.to_owned(),
            expected: "valid UTF-8".to_owned(),
        })?;
        self.set(key, key.expect.read(text), origin)
    }

    fn set(&mut self, key: &Key, value: ValueKind, origin: &str) -> Result<(), ConfigError> {
        if !key.expect.accepts(&value) {
            return Err(ConfigError::Value {
                key: key.name.to_owned(),
                value: shown(&value),
                origin: origin.to_owned(),
                expected: key.expect.to_string(),
            });
        }
        self.0.insert(key.name.to_owned(), Value::new(Some(&origin.to_owned()), value));
        Ok(())
    }
}

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// The leaves of nested tables by full name. An empty table is a leaf unless it is a known section,
/// so that a misspelt one is seen.
fn flatten(prefix: &str, table: Map<String, Value>, leaves: &mut Vec<(String, ValueKind)>) {
    for (name, value) in table {
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(inner) if !inner.is_empty() || is_section(&name) => flatten(&name, inner, leaves),
            leaf => leaves.push((name, leaf)),
        }
    }
}
