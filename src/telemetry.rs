//! Logs: one line a noteworthy thing, with fields and units, and none a request by default.
//!
//! Logs go to standard error. Standard output carries what a command was asked for: the sums of
//! `audit`, the lines of `print-config`, and of `serve` the one start line.

use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Section `[log]` of the configuration. Defaults: `config/default.toml`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Default [`Format::Human`].
    pub format: Format,
    /// What is logged, in the filter syntax of `tracing`: `info`, `warn,event_tracker::store=debug`. Default `info`.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For reading; coloured on a terminal unless `NO_COLOR` is set.
    Human,
    /// One JSON object a line, for collectors.
    Json,
}

/// Whether [`init`] understands `level`.
#[must_use]
pub fn is_filter(level: &str) -> bool {
    !level.trim().is_empty() && EnvFilter::builder().parse(level).is_ok()
}

/// Starts logging for the rest of the process.
///
/// # Errors
/// When `options.level` is no filter ([`is_filter`]) or logging was started before.
pub fn init(options: &Options) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(&options.level).context("log.level is not a filter")?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match options.format {
        Format::Human => {
            let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            lines.with_ansi(coloured).with_target(false).try_init()
        }
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging can't be started: {error}"))
}

/// From now on a panic is one line in the log, or on standard error where there is no log, and never
/// a backtrace.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let (what, place) = describe(panic);
        if tracing::enabled!(tracing::Level::ERROR) {
            tracing::error!(%place, "panic: {what}");
        } else {
            let _ = writeln!(std::io::stderr(), "event-tracker: internal error: {what} ({place})");
        }
    }));
}

fn describe(panic: &PanicHookInfo<'_>) -> (String, String) {
    let what = panic.payload_as_str().unwrap_or("unknown").replace('\n', " ");
    let place = panic.location().map_or_else(String::new, ToString::to_string);
    (what, place)
}
