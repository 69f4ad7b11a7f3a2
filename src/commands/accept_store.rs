//! `event-tracker accept-store`.

use std::io::Write;

use anyhow::{Context, bail};

use crate::config::Config;
use crate::node::ACCEPT;

const MANUAL: &str = "\
A node notices when its database has lost what it had confirmed (a failover, a restored backup), or when \
another database answers than the one that its data folder belongs to. What it still has it delivers \
again. The rest it reports on /readyz, on the dashboard, in the log and by `audit`, and it writes nothing \
into another database, until an administrator has looked and says with this command: this is the \
database from now on, and what it lacks is gone.

Say it for the data folder of each node concerned. A running service hears it within a second, a stopped \
one when it starts.

Examples:
  event-tracker audit                 what is missing?
  event-tracker accept-store --data-dir /var/lib/event-tracker";

/// Confirm that the store is the right one, whatever it lacks
///
/// Confirms that the present database is the one to use, and that counts it lacks are gone.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub(super) struct AcceptStore {}

impl AcceptStore {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<()> {
        let folder = &config.data_dir;
        if !folder.join("journal").is_dir() {
            bail!("{} is not a data folder of event-tracker: name one with --data-dir", folder.display());
        }
        let path = folder.join(ACCEPT);
        std::fs::write(&path, b"").with_context(|| format!("can't write {}", path.display()))?;
        writeln!(std::io::stdout(), "the node with the data folder {} takes the store as it is", folder.display())?;
        Ok(())
    }
}
