//! Logs: one line a noteworthy thing, with fields and units, and none a request by default.
//!
//! Logs go to standard error. Standard output carries what a command was asked for: the sums of
//! `audit`, the lines of `print-config`, and of `serve` the one start line.
//!
//! Logging is best effort: nothing waits for it and nothing fails by it, whatever becomes of the two
//! streams ([`outlet`]). Only the results of commands are written at once, since they are what was
//! asked for.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter, ParseError};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

mod outlet;

use outlet::Outlet;

/// How long the end of the process waits for lines that are not written yet.
const FINISH_PATIENCE: Duration = Duration::from_millis(500);

static ERRORS: Outlet = Outlet::new(notice, |_| {});
static OUTPUT: Outlet = Outlet::new(
    |_| String::new(),
    |error| {
        tracing::warn!(%error, "Standard output can't be written; `create-superuser` makes the first superuser without its link");
    },
);

/// How this process writes what does not come through `tracing`: see [`line`].
static STYLE: AtomicU8 = AtomicU8::new(PLAIN);
/// Nothing is configured yet, or a command ends.
const PLAIN: u8 = 0;
const HUMAN: u8 = 1;
const JSON: u8 = 2;

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
    !level.trim().is_empty() && filter(level).is_ok()
}

/// As [`EnvFilter`] parses a text, but for the warning that it prints about levels that are not
/// compiled in: printing fails by a panic.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    let off = EnvFilter::default().add_directive(LevelFilter::OFF.into());
    let mut directives = level.split(',').filter(|directive| !directive.is_empty());
    directives.try_fold(off, |filter, directive| Ok(filter.add_directive(directive.parse::<Directive>()?)))
}

/// Starts logging for the rest of the process.
///
/// # Errors
/// When `options.level` is no filter ([`is_filter`]) or logging was started before.
pub fn init(options: &Options) -> anyhow::Result<()> {
    let filter = filter(&options.level).context("log.level is not a filter")?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| LogLine).log_internal_errors(false);
    let (started, style) = match options.format {
        Format::Human => {
            let coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            (lines.with_ansi(coloured).with_target(false).try_init(), HUMAN)
        }
        Format::Json => {
            (lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(), JSON)
        }
    };
    started.map_err(|error| anyhow::anyhow!("logging can't be started: {error}"))?;
    STYLE.store(style, Ordering::Relaxed);
    Ok(())
}

/// Takes what `tracing` writes, a line at a time.
struct LogLine;

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        ERRORS.say(line.to_vec(), standard_error);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// Not the handles of the standard library: whoever blocks in one of those holds its lock.

fn standard_error() -> Box<dyn Write + Send> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(stream) => Box::new(std::fs::File::from(stream)),
        Err(_) => Box::new(io::stderr()),
    }
}

fn standard_output() -> Box<dyn Write + Send> {
    match io::stdout().as_fd().try_clone_to_owned() {
        Ok(stream) => Box::new(std::fs::File::from(stream)),
        Err(_) => Box::new(io::stdout()),
    }
}

/// Prints a line on standard output, some time soon and if it takes any: for what the service says
/// by the way.
pub fn print(line: &str) {
    OUTPUT.say(format!("{line}\n").into_bytes(), standard_output);
}

/// The same on standard error, for the line with which a command fails.
pub fn complain(line: &str) {
    ERRORS.say(format!("{line}\n").into_bytes(), standard_error);
}

/// How many lines of the log were never written: the stream was full, dead or slower than the log.
#[must_use]
pub fn dropped_lines() -> u64 {
    ERRORS.dropped()
}

/// Gives the last lines a short time to be written. To be called before the process ends.
pub fn finish() {
    OUTPUT.finish(FINISH_PATIENCE);
    ERRORS.finish(FINISH_PATIENCE);
}

/// From now on a panic is one line on standard error, and never a backtrace.
pub fn log_panics() {
    // Not by way of `tracing`: it may be what panicked.
    std::panic::set_hook(Box::new(|panic| {
        let (what, place) = describe(panic);
        ERRORS.say(line("ERROR", &format!("panic: {what}"), &place).into_bytes(), standard_error);
    }));
}

fn describe(panic: &PanicHookInfo<'_>) -> (String, String) {
    let what = panic.payload_as_str().unwrap_or("unknown").replace('\n', " ");
    let place = panic.location().map_or_else(String::new, ToString::to_string);
    (what, place)
}

fn notice(dropped: u64) -> String {
    let (lines, were) = if dropped == 1 { ("line", "was") } else { ("lines", "were") };
    line("WARN", &format!("{dropped} log {lines} {were} dropped"), "")
}

/// A line of the log, in the way of the others.
fn line(level: &str, message: &str, place: &str) -> String {
    let mut time = String::new();
    // It only fails where the text does not take it, and a String takes all.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    match STYLE.load(Ordering::Relaxed) {
        JSON => {
            let mut line = serde_json::json!({ "timestamp": time, "level": level, "message": message });
            if !place.is_empty() {
                line["place"] = place.into();
            }
            format!("{line}\n")
        }
        style => {
            let mut line = if style == HUMAN { format!("{time} {level:>5} ") } else { "event-tracker: ".to_owned() };
            line.push_str(message);
            if !place.is_empty() {
                let _ = write!(line, " place={place}");
            }
            line.push('\n');
            line
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_level_is_a_filter_whether_or_not_it_is_compiled_in() {
        for level in ["info", "trace", "off", "warn,event_tracker::store=debug", "event_tracker=debug", "info,,warn"] {
            assert!(is_filter(level), "{level}");
        }
        for level in ["", " ", "event_tracker=loud", "info,a=b=c"] {
            assert!(!is_filter(level), "{level}");
        }
        let hint = |level: &str| filter(level).unwrap().max_level_hint();
        assert_eq!(hint("info"), Some(LevelFilter::INFO));
        assert_eq!(hint("off"), Some(LevelFilter::OFF));
        assert_eq!(hint("warn,event_tracker::store=debug"), Some(LevelFilter::DEBUG));
    }

    #[test]
    fn dropped_lines_are_told_in_one_line_of_the_log() {
        assert!(notice(1).ends_with("1 log line was dropped\n"), "{}", notice(1));
        assert!(notice(12).ends_with("12 log lines were dropped\n"), "{}", notice(12));
    }
}
