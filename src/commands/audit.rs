//! `event-tracker audit`.

use std::io::Write;

use anyhow::bail;
use serde::Serialize;

use crate::config::Config;
use crate::store::{self, Books};

const MANUAL: &str = "\
The store keeps the counts of each hour, the all-time total of each event, what administrators removed, \
and in its ledger what each writer has committed. They are changed together, so at every moment:
  hourly counts + removed = ledger      and      totals = hourly counts
Counts that are acknowledged but not yet flushed are in none of the sums. Safe while the service runs.

Exit codes:
  0  the books balance
  1  they don't, or the store can't be read

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
}

impl Audit {
    pub(super) fn run(self, config: Config) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (label, books) = runtime.block_on(async {
            let store = store::open_for_audit(&config.store, &config.data_dir).await?;
            let books = store.audit().await;
            store.close().await;
            anyhow::Ok((store.label(), books?))
        })?;
        let text = if self.json { as_json(&label, &books)? } else { as_text(&label, &books) };
        std::io::stdout().write_all(text.as_bytes())?;
        if !books.balance() {
            bail!("the books do not balance");
        }
        Ok(())
    }
}

fn as_json(label: &str, books: &Books) -> anyhow::Result<String> {
    let &Books { rows, totals, removed, ledger } = books;
    let sums = Sums { store: label, balanced: books.balance(), rows, removed, ledger, totals };
    Ok(serde_json::to_string(&sums)? + "\n")
}

fn as_text(label: &str, books: &Books) -> String {
    let &Books { rows, totals, removed, ledger } = books;
    let sums = [("hourly counts", rows), ("removed", removed), ("ledger", ledger), ("totals", totals)];
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
    text + if books.balance() { "balanced\n" } else { "not balanced\n" }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    #[test]
    fn balanced_books_are_printed_aligned() {
        let books = Books { rows: 12_000, totals: 12_000, removed: -5, ledger: 11_995 };
        let text = as_text("SQLite at data", &books);
        assert_eq!(
            text,
            "SQLite at data\nhourly counts  12000\nremoved           -5\nledger         11995\ntotals         12000\nbalanced\n"
        );
    }

    #[test]
    fn books_that_do_not_balance_say_what_differs_and_by_how_much() {
        let text = as_text("x", &Books { rows: 10, totals: 12, removed: 0, ledger: 11 });
        assert!(text.contains("differ from the ledger by -1\n"), "{text}");
        assert!(text.contains("totals differ from the hourly counts by 2\n"), "{text}");
        assert!(text.ends_with("not balanced\n"), "{text}");
    }

    #[test]
    fn the_sums_in_json_are_exact_numbers() {
        let huge = i128::from(i64::MAX) * 3;
        let json = as_json("x", &Books { rows: huge, totals: huge, removed: 0, ledger: huge }).unwrap();
        assert_eq!(
            json,
            format!(r#"{{"store":"x","balanced":true,"rows":{huge},"removed":0,"ledger":{huge},"totals":{huge}}}"#)
                + "\n"
        );
    }
}
