//! The settings of the dashboard: the section `[admin]` of the configuration.

use std::time::Duration;

use serde::Deserialize;

/// Every key is explained in `config/default.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// A session ends after so many hours without a request. At least 1.
    pub session_idle_hours: u32,
    /// A session ends after so many hours in any case. At least 1.
    pub session_hours: u32,
    /// Sessions of one superuser; a further login ends the oldest.
    pub sessions_max: u32,
    /// Dashboards that are updated live.
    pub streams_max: usize,
    pub cookie_secure: CookieSecure,
    /// Whether to believe what a proxy says about the client and its protocol.
    pub trust_proxy: bool,
    /// How long a deleted event can be restored.
    pub delete_grace_hours: u32,
}

/// Whether the session cookie is for TLS only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CookieSecure {
    /// If the request came by TLS.
    Auto,
    Always,
    Never,
}

impl Options {
    pub(super) fn session_idle(&self) -> chrono::TimeDelta {
        chrono::TimeDelta::hours(self.session_idle_hours.into())
    }

    pub(super) fn session_age_max(&self) -> chrono::TimeDelta {
        chrono::TimeDelta::hours(self.session_hours.into())
    }

    /// How long a deleted event can be restored.
    #[must_use]
    pub fn delete_grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.delete_grace_hours) * 3600)
    }
}

/// As in `config/default.toml`.
impl Default for Options {
    fn default() -> Self {
        Self {
            session_idle_hours: 12,
            session_hours: 168,
            sessions_max: 20,
            streams_max: 1000,
            cookie_secure: CookieSecure::Auto,
            trust_proxy: false,
            delete_grace_hours: 168,
        }
    }
}
