//! `event-tracker audit`.

use std::io::Write;

use anyhow::bail;
use serde::Serialize;

use crate::batch::Inventory;
use crate::config::Config;
use crate::domain::BatchSeq;
use crate::store::{self, Books, LedgerPosition, Store};

const MANUAL: &str = "\
The store keeps the counts of each hour, the all-time total of each event, what administrators removed, \
and in its ledger what each writer has committed. They are changed together, so at every moment:
  hourly counts + removed = ledger      and      totals = hourly counts

The data folder of this node, if there is one, tells the rest:
  pending  counts in the journal that the store does not have yet; a service delivers them
  missing  counts that the store had confirmed, or should have, and lacks; nobody can deliver them
A running service counts on meanwhile, and what it acknowledges at level memory is in no file. The audit \
changes nothing, neither in the store nor in the folder.

Exit codes:
  0  the books balance and nothing is missing
  1  they don't, something is missing, another database answers, or the store can't be read

Examples:
  event-tracker audit
  event-tracker audit --json --database-url postgres://tracker@localhost/tracker";

/// Check that the books of the store balance
///
/// Sums everything in the store and checks that nothing was lost or counted twice.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub(super) struct Audit {
    /// Print the sums as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Sums<'a> {
    store: &'a str,
    balanced: bool,
    rows: i128,
    removed: i128,
    ledger: i128,
    totals: i128,
    hours: i128,
    pending: i128,
    missing: i128,
    another_database: bool,
}

/// What the data folder of this node says beside the books.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Folder {
    pending: i128,
    missing: i128,
    another_database: bool,
}

impl Audit {
    pub(super) fn run(self, config: Config) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (label, books, folder) = runtime.block_on(async {
            let store = store::open_for_audit(&config.store, &config.data_dir).await?;
            // The folder first: what it says is pending may be in the store a moment later.
            let inventory = Inventory::read(&config.data_dir)?.unwrap_or_default();
            let audited = async {
                let books = store.audit().await?;
                Ok::<_, store::StoreError>((books, compare(&inventory, &*store).await?))
            };
            let audited = audited.await;
            store.close().await;
            let (books, folder) = audited?;
            anyhow::Ok((store.label(), books, folder))
        })?;
        let text = if self.json { as_json(&label, &books, folder)? } else { as_text(&label, &books, folder) };
        std::io::stdout().write_all(text.as_bytes())?;
        if folder.another_database {
            bail!("another database answers than the one that the data folder belongs to");
        }
        if !books.balance() {
            bail!("the books do not balance");
        }
        if folder.missing != 0 {
            bail!("the store lacks {} counts that were acknowledged", folder.missing);
        }
        Ok(())
    }
}

async fn compare(inventory: &Inventory, store: &dyn Store) -> Result<Folder, store::StoreError> {
    let identity = store.identity().await?;
    if inventory.mark.identity.as_ref().is_some_and(|known| *known != identity) {
        let pending = inventory.pending.iter().map(|(_, total)| total).sum();
        return Ok(Folder { pending, missing: inventory.mark.missing(), another_database: true });
    }
    let mut writers: Vec<_> = inventory.mark.confirmed.keys().copied().collect();
    writers.extend(inventory.pending.iter().map(|(id, _)| id.writer));
    writers.sort_unstable();
    writers.dedup();
    let position = store.position(writers).await?;
    Ok(Folder {
        pending: inventory.pending.iter().filter(|(id, _)| !position.includes(*id)).map(|(_, total)| total).sum(),
        missing: inventory.mark.missing() + lost(inventory, &position),
        another_database: false,
    })
}

/// What the store had confirmed, does not have any more, and no kept segment can give back.
fn lost(inventory: &Inventory, position: &LedgerPosition) -> i128 {
    let of_writer = inventory.mark.confirmed.iter().map(|(writer, confirmed)| {
        let found = position.applied.get(writer).map_or((BatchSeq(0), 0), |entry| (entry.last_seq, entry.total));
        if found.0 >= confirmed.seq {
            return 0;
        }
        let kept = inventory.kept.iter().filter(|(id, _)| id.writer == *writer && id.seq > found.0);
        let kept: i128 = kept.map(|(_, total)| total).sum();
        confirmed.total.map_or(0, |total| (total - found.1 - kept).max(0))
    });
    of_writer.sum()
}

fn as_json(label: &str, books: &Books, folder: Folder) -> anyhow::Result<String> {
    let &Books { rows, totals, hours, removed, ledger } = books;
    let Folder { pending, missing, another_database } = folder;
    let balanced = books.balance();
    let sums =
        Sums { store: label, balanced, rows, removed, ledger, totals, hours, pending, missing, another_database };
    Ok(serde_json::to_string(&sums)? + "\n")
}

fn as_text(label: &str, books: &Books, folder: Folder) -> String {
    let &Books { rows, totals, hours, removed, ledger } = books;
    let mut sums = vec![("hourly counts", rows), ("removed", removed), ("ledger", ledger), ("totals", totals)];
    if folder.pending != 0 {
        sums.push(("pending", folder.pending));
    }
    if folder.missing != 0 {
        sums.push(("missing", folder.missing));
    }
    let width = sums.iter().map(|(_, sum)| sum.to_string().len()).max().unwrap_or(0);
    let mut text = format!("{label}\n");
    for (name, sum) in sums {
        text += &format!("{name:<14} {sum:>width$}\n");
    }
    if rows + removed != ledger {
        text += &format!("hourly counts + removed differ from the ledger by {}\n", rows + removed - ledger);
    }
    if totals != rows {
        text += &format!("totals differ from the hourly counts by {}\n", totals - rows);
    }
    if hours != rows {
        text += &format!("sums of hours differ from the hourly counts by {}\n", hours - rows);
    }
    text + if books.balance() { "balanced\n" } else { "not balanced\n" }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    #[test]
    fn balanced_books_are_printed_aligned() {
        let books = Books { rows: 12_000, totals: 12_000, hours: 12_000, removed: -5, ledger: 11_995 };
        let text = as_text("SQLite at data", &books, Folder::default());
        assert_eq!(
            text,
            "SQLite at data\nhourly counts  12000\nremoved           -5\nledger         11995\ntotals         12000\nbalanced\n"
        );
    }

    #[test]
    fn books_that_do_not_balance_say_what_differs_and_by_how_much() {
        let text = as_text("x", &Books { rows: 10, totals: 12, hours: 13, removed: 0, ledger: 11 }, Folder::default());
        assert!(text.contains("differ from the ledger by -1\n"), "{text}");
        assert!(text.contains("totals differ from the hourly counts by 2\n"), "{text}");
        assert!(text.contains("sums of hours differ from the hourly counts by 3\n"), "{text}");
        assert!(text.ends_with("not balanced\n"), "{text}");
    }

    #[test]
    fn the_sums_in_json_are_exact_numbers() {
        let huge = i128::from(i64::MAX) * 3;
        let json = as_json(
            "x",
            &Books { rows: huge, totals: huge, hours: huge, removed: 0, ledger: huge },
            Folder { pending: 3, missing: huge, another_database: false },
        )
        .unwrap();
        assert_eq!(
            json,
            format!(
                r#"{{"store":"x","balanced":true,"rows":{huge},"removed":0,"ledger":{huge},"totals":{huge},"hours":{huge},"pending":3,"missing":{huge},"another_database":false}}"#
            ) + "\n"
        );
    }
}
