//! The command line: one subcommand a file, and what all of them share.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, ConfigError, Flag, Setting, Sources};
use crate::telemetry;

mod accept_store;
mod audit;
mod completions;
mod create_random_events;
mod create_superuser;
mod fold;
mod import;
mod print_config;
mod random_traffic;
mod serve;
mod users;

const ABOUT: &str = "Counts events exactly once and reads them exactly.

Clients POST the names of events; event-tracker keeps one exact count for each event and hour (UTC), \
survives crashes, and answers with sums, series and pictures. With no configuration at all it listens \
on 127.0.0.1:8000 and keeps everything in ./data. With DATABASE_URL it keeps the counts in PostgreSQL, \
which any number of nodes may share.";

const MANUAL: &str = "\
Configuration, weakest first:
  built-in defaults        each is explained in config/default.toml
  configuration file       --config FILE, or config/event-tracker.toml if it exists
  EVENT_TRACKER__SECTION__KEY
                           any setting, such as EVENT_TRACKER__HTTP__LISTEN or EVENT_TRACKER__DATA_DIR
  PORT, DATABASE_URL       as hosting platforms set them: listen on 0.0.0.0:$PORT; the database
  options                  such as --listen
  `event-tracker print-config` shows every setting and where its value is from.

Output:
  Logs go to standard error, results and the start line to standard output. NO_COLOR is honoured.

Exit codes:
  0  done
  1  failed
  2  wrong usage or wrong configuration

Examples:
  event-tracker                                  serve on 127.0.0.1:8000, keep everything in ./data
  PORT=8080 DATABASE_URL=postgres://tracker@db/tracker event-tracker
  curl -X POST http://127.0.0.1:8000/api/events/login
  event-tracker create-random-events --days 7    a week of plausible history to look at
  event-tracker import access.log                count the pages of an access log
  event-tracker create-superuser --user ann      somebody who may use the dashboard under /admin
  event-tracker audit                            check that the books balance";

/// The whole command line. Without a subcommand it serves.
#[derive(Debug, Parser)]
#[command(name = "event-tracker", version, about = env!("CARGO_PKG_DESCRIPTION"), long_about = ABOUT)]
#[command(after_long_help = MANUAL, after_help = "`event-tracker --help` explains configuration and exit codes.")]
#[command(max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: SettingFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    CreateRandomEvents(create_random_events::CreateRandomEvents),
    CreateSuperuser(create_superuser::CreateSuperuser),
    Users(users::Users),
    Audit(audit::Audit),
    AcceptStore(accept_store::AcceptStore),
    Fold(fold::Fold),
    Import(import::ImportLogs),
    PrintConfig(print_config::PrintConfig),
    Completions(completions::Completions),
}

/// The settings that people change most, as options of every command. A value is checked like one
/// from a file, by [`config::load`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
struct SettingFlags {
    /// Configuration file [default: config/event-tracker.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for the journal and the embedded database [data_dir, default: data]
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// `postgres://…` or `sqlite:PATH` [store.url, default: SQLite in the data folder]
    ///
    /// Other users of this machine can see the command line: better set DATABASE_URL when the URL holds a password.
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// IP address and port to listen on [http.listen, default: 127.0.0.1:8000]
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// What precedes an acknowledgement: memory, journal or disk [journal.ack, default: journal]
    ///
    /// memory: counted in memory. journal: also in the journal file, so that it survives kill -9. disk: also forced to
    /// the disk, so that it survives power loss.
    #[arg(long, global = true, value_name = "LEVEL")]
    ack: Option<String>,
    /// Milliseconds between two commits to the store [flush.interval_ms, default: 2000]
    #[arg(long, global = true, value_name = "MS")]
    flush_interval_ms: Option<String>,
    /// human or json [log.format, default: human]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// off, error, warn, info, debug, or a list of module=level [log.level, default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl SettingFlags {
    fn load(self) -> Result<(Config, Vec<Setting>), ConfigError> {
        let flags = [
            ("data_dir", "--data-dir", self.data_dir),
            ("store.url", "--database-url", self.database_url),
            ("http.listen", "--listen", self.listen),
            ("journal.ack", "--ack", self.ack),
            ("flush.interval_ms", "--flush-interval-ms", self.flush_interval_ms),
            ("log.format", "--log-format", self.log_format),
            ("log.level", "--log-level", self.log_level),
        ];
        let flags =
            flags.into_iter().filter_map(|(key, name, value)| value.map(|value| Flag { key, name, value })).collect();
        config::load(&Sources { file: self.config, environment: std::env::vars_os().collect(), flags })
    }

    /// The configuration of a command that does work, with its log started.
    fn load_and_log(self) -> anyhow::Result<Config> {
        let (config, _) = self.load()?;
        telemetry::init(&config.log)?;
        Ok(config)
    }
}

/// Wrong usage that only shows after parsing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Does what the command line of this process asks for.
#[must_use]
pub fn run() -> ExitCode {
    match CommandLine::try_parse() {
        Ok(line) => report(execute(line)),
        Err(error) if error.use_stderr() => complain(2, &usage_line(&error)),
        // Help and version are answers.
        Err(answer) => {
            let _ = answer.print();
            ExitCode::SUCCESS
        }
    }
}

fn execute(line: CommandLine) -> anyhow::Result<()> {
    match line.command {
        None => serve::run(line.settings.load_and_log()?),
        Some(Command::Serve(serve::Serve {})) => serve::run(line.settings.load_and_log()?),
        Some(Command::CreateRandomEvents(command)) => command.run(|| line.settings.load_and_log()),
        Some(Command::CreateSuperuser(command)) => command.run(|| line.settings.load_and_log()),
        Some(Command::Users(command)) => command.run(line.settings.load_and_log()?),
        Some(Command::Audit(command)) => command.run(line.settings.load_and_log()?),
        Some(Command::AcceptStore(command)) => command.run(&line.settings.load_and_log()?),
        Some(Command::Fold(command)) => command.run(&line.settings.load_and_log()?),
        Some(Command::Import(command)) => command.run(|| line.settings.load_and_log()),
        Some(Command::PrintConfig(print_config::PrintConfig {})) => print_config::run(&line.settings.load()?.1),
        Some(Command::Completions(command)) => command.run(),
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    // `event-tracker print-config | head -1`: the reader has what it wanted.
    if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let code = if error.is::<ConfigError>() || error.is::<Usage>() { 2 } else { 1 };
    complain(code, &format!("{error:#}"))
}

/// One line on standard error, whatever the message holds.
fn complain(code: u8, message: &str) -> ExitCode {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    telemetry::complain(&format!("event-tracker: {message}"));
    ExitCode::from(code)
}

/// What clap says on several lines, as one.
fn usage_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let said = rendered.split("\n\nUsage:").next().unwrap_or_default();
    let said = said.split("\n\nFor more information").next().unwrap_or_default().trim_start_matches("error: ");
    let parts: Vec<&str> = said.split("\n\n").map(str::trim).filter(|part| !part.is_empty()).collect();
    format!("{} (see event-tracker --help)", parts.join("; "))
}
