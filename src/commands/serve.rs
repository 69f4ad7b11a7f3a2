//! `event-tracker serve`, which is also what happens without a subcommand.

use crate::app;
use crate::config::Config;

const MANUAL: &str = "\
Prints one line on standard output with the address, the store and the durability as soon as it \
takes requests, and logs to standard error.

Signals:
  SIGTERM, SIGINT  stop in order: /readyz says 503, requests under way are finished, counts are flushed.
                   What can't be flushed in time stays in the journal for the next start. A second signal
                   ends at once; nothing that the journal holds is lost. SIGHUP, SIGQUIT and all others that
                   would end the process do the same, unless they were ignored when it was started (nohup).

Examples:
  event-tracker serve --listen 127.0.0.1:9000 --data-dir /var/lib/event-tracker
  event-tracker serve --config config/container.toml
  event-tracker serve --ack disk --database-url postgres://tracker@localhost/tracker";

/// Run the service (the default without a subcommand)
///
/// Runs the service until it is told to stop: the counting API under /api/events, pictures, and the admin page under
/// /admin.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub(super) struct Serve {}

pub(super) fn run(config: Config) -> anyhow::Result<()> {
    app::run(config)
}
