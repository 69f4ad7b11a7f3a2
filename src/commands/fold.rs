//! `event-tracker fold`.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::folder::Folder;
use crate::store::{self, Folded};

const MANUAL: &str = "\
A commit appends what a node has counted to a log in the database; the nodes add the log to the tables of \
counts every store.fold_interval_ms. Every answer has both, and so has the view `counts`. Fold by hand \
before you read the tables themselves, before a dump, or when no node runs.

Examples:
  event-tracker fold --database-url postgres://tracker@db/tracker";

/// Add the log of the store to its tables of counts now
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub(super) struct Fold {}

impl Fold {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (folded, label) = runtime.block_on(async {
            let store = store::open(&config.store, &config.data_dir).await?;
            let folder = Folder::new(Arc::clone(&store), Duration::from_millis(config.store.fold_interval_ms));
            let folded = folder.fold().await;
            store.close().await;
            anyhow::Ok((folded?, store.label()))
        })?;
        let Folded { batches, counters } = folded;
        writeln!(std::io::stdout(), "folded {batches} batches with {counters} counters in {label}")?;
        Ok(())
    }
}
