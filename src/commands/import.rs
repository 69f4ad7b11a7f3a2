//! `event-tracker import`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::Usage;
use crate::app;
use crate::config::Config;
use crate::import::{Format, Import, Methods, Options, Source, Statuses, Summary, Template};

const MANUAL: &str = "\
Each line of an access log (Common or Combined Log Format, as Apache, nginx and others write it) counts one in the \
hour of its time, in its own time zone. A line of JSON is an item as the API takes it: a name, or \
{\"event\": …, \"count\"?: …, \"time\"?: …} with a time in RFC 3339, in seconds since 1970, or YYYYMMDDHH (without one: now). \
Files compressed with gzip are inflated.

What is counted of an access log, if nothing else is said, is page views: GET requests with status 2xx or 304 whose \
path does not end like an image, a style, a script or a font. With another --event all requests are counted. The name is the path \
without its query, percent-decoded.

Each line counts once:
  An import that was cut off, by kill -9 too, goes on where it stopped when it is run again.
  A log that has grown since is imported again, and only its new lines count.
  A copy of it, renamed or compressed, is known by its content and counts nothing.
  With other options it is refused, unless --another says that these count as well.
Logs are told apart by their first line and by all that was counted of them. A part that was cut out of a log, or \
logs joined in another order, are other logs. What is counted is taken back by an administrator only.

Lines that can't be counted are skipped, for reasons that the summary names. A last line without its end is counted \
if it can be read, and otherwise left for the next import.

Works while the service runs, also with the embedded database.

Examples:
  event-tracker import /var/log/nginx/access.log
  event-tracker import access.log.2.gz access.log.1 access.log
  zstdcat access.log.zst | event-tracker import -
  event-tracker import --event 'web {status}' --status 4xx,5xx access.log
  event-tracker import --prefix shop: orders.ndjson";

/// Count the lines of access logs or JSON lines, each once
///
/// Reads logs and adds them to the configured store, in the hours of their own times.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub(super) struct ImportLogs {
    /// Logs, in the order in which they are read; `-` is standard input
    #[arg(required = true, value_name = "FILE|-")]
    files: Vec<PathBuf>,
    /// How lines are written. auto: each line of its own
    #[arg(long, default_value = "auto")]
    format: FormatName,
    /// Names of requests: path, method-path, status, or a text with {path}, {method} and {status} in it
    #[arg(long, value_name = "TEMPLATE", default_value = "path")]
    event: String,
    /// Put before each name
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Methods that count: a list, or any [default: GET with --event path, else any]
    #[arg(long, value_name = "LIST")]
    method: Option<String>,
    /// Status codes that count: a list such as 2xx,304, or any [default: 2xx,304 with --event path, else any]
    #[arg(long, value_name = "LIST")]
    status: Option<String>,
    /// Count images, styles, scripts and fonts, too; always so unless --event is path
    #[arg(long)]
    assets: bool,
    /// Count a log though it was imported with other options, or begins like a longer one that was imported
    #[arg(long)]
    another: bool,
    /// Lines of one commit: 1 to 1000000
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    commit_lines: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FormatName {
    Auto,
    Common,
    Combined,
    Json,
}

impl ImportLogs {
    /// `load` is called once the command's own options are known to be right.
    pub(super) fn run(self, load: impl FnOnce() -> anyhow::Result<Config>) -> anyhow::Result<()> {
        let options = self.options()?;
        let sources = self.files.iter().map(|path| match path.to_str() {
            Some("-") => Source::StandardInput,
            _ => Source::File(path.clone()),
        });
        let sources: Vec<Source> = sources.collect();
        if sources.iter().filter(|source| **source == Source::StandardInput).count() > 1 {
            return Err(Usage("standard input is named twice".into()).into());
        }
        app::with_node(load()?, async |node| {
            for source in &sources {
                let begun = Instant::now();
                let bar = progress(source)?;
                let on_read = bar.clone();
                let import = Import {
                    node,
                    source,
                    options: &options,
                    another: self.another,
                    lines_max: self.commit_lines,
                    on_read: Arc::new(move |read| on_read.set_position(read)),
                };
                let mut summary = Summary::default();
                let done = import.run(&mut summary).await;
                bar.finish_and_clear();
                let label = source.label();
                if done.is_ok() || summary.lines > 0 {
                    let text = told(&label, &summary, &node.store.label(), begun.elapsed().as_secs_f64());
                    std::io::stdout().write_all(text.as_bytes())?;
                }
                done.with_context(|| label)?;
            }
            Ok(())
        })
    }

    fn options(&self) -> Result<Options, Usage> {
        let of = |option: &'static str| move |why: String| Usage(format!("{option}: {why}"));
        let event = Template::parse(&self.event).map_err(of("--event"))?;
        let is_path = event.is_path();
        let or = |given: &Option<String>, of_pages: &str| {
            given.clone().unwrap_or_else(|| (if is_path { of_pages } else { "any" }).to_owned())
        };
        Ok(Options {
            format: match self.format {
                FormatName::Auto => Format::Auto,
                FormatName::Common => Format::Common,
                FormatName::Combined => Format::Combined,
                FormatName::Json => Format::Json,
            },
            event,
            prefix: self.prefix.clone(),
            methods: Methods::parse(&or(&self.method, "GET")).map_err(of("--method"))?,
            statuses: Statuses::parse(&or(&self.status, "2xx,304")).map_err(of("--status"))?,
            assets: self.assets || !is_path,
        })
    }
}

/// indicatif draws on standard error, and only when that is a terminal.
fn progress(source: &Source) -> anyhow::Result<ProgressBar> {
    Ok(match source.bytes() {
        Some(bytes) => {
            let style = "{bar:40} {binary_bytes} of {binary_total_bytes}, {eta} to go";
            ProgressBar::new(bytes).with_style(ProgressStyle::with_template(style)?)
        }
        None => ProgressBar::no_length().with_style(ProgressStyle::with_template("{binary_bytes} read, {elapsed}")?),
    })
}

fn told(label: &str, summary: &Summary, store: &str, seconds: f64) -> String {
    let Summary { before, lines, counted_lines, counts, events, hours, skips } = summary;
    let many = |number: u64, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    let mut text = format!("{label}: {}, {counted_lines} counted", many(*lines, "line"));
    if *counts > 0 {
        let (events, hours) = (many(events.len() as u64, "event"), many(hours.len() as u64, "hour"));
        // Into a String nothing fails.
        let _ = write!(text, " as {} of {events} in {hours}", many(*counts, "occurrence"));
    }
    let _ = writeln!(text, ", in {store}, in {seconds:.2} s");
    if *before > 0 {
        let _ = writeln!(text, "  imported before: {}", many(*before, "line"));
    }
    for (reason, skipped) in skips.iter() {
        let detail = skipped.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        let _ = writeln!(text, "  skipped {}: {reason} (first: line {}{detail})", skipped.lines, skipped.first_line);
    }
    text
}
