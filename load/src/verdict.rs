//! What an answer means: was it good, and what does it say about the increments of its request?

use crate::ledger::{Credit, Ledger};
use crate::request::Written;
use crate::response::Response;
use crate::tally::Tally;

/// Writes into the books what an answer means for them.
///
/// # Errors
/// The kind of error, if the answer is not what was asked for.
pub fn judge(
    written: &Written,
    response: &Response,
    buffer: &[u8],
    ledger: &mut Ledger,
    tally: &mut Tally,
) -> Result<(), String> {
    match response.status {
        200..300 => match &written.credit {
            Credit::Rows(batch) => {
                let rejected = rejected_rows(&response.body(buffer), batch.rows.len());
                match rejected {
                    Some(rejected) => {
                        tally.rows += (batch.rows.len() - rejected.len()) as u64;
                        ledger.acknowledge_except(batch, &rejected);
                        if rejected.is_empty() { Ok(()) } else { Err("rows rejected".to_owned()) }
                    }
                    None => {
                        tally.unknown += 1;
                        ledger.doubt(&written.credit);
                        Err("batch answer does not say which rows were accepted".to_owned())
                    }
                }
            }
            credit => {
                tally.rows += u64::from(!matches!(credit, Credit::Nothing));
                ledger.acknowledge(credit);
                Ok(())
            }
        },
        304 => Ok(()),
        404 if written.may_be_missing => Ok(()),
        status => {
            // A refusal says whether it was counted; a server error that does not say may have done either.
            let body = response.body(buffer);
            let is_doubtful = match counted(&body) {
                Some(Counted::No) => false,
                Some(Counted::Unknown) => true,
                None => status >= 500,
            };
            if is_doubtful {
                tally.unknown += u64::from(!matches!(written.credit, Credit::Nothing));
                ledger.doubt(&written.credit);
            }
            Err(format!("HTTP {status}"))
        }
    }
}

/// What a refusal says of its increments.
#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Counted {
    No,
    Unknown,
}

/// `None` if the answer does not say it.
fn counted(body: &[u8]) -> Option<Counted> {
    #[derive(serde::Deserialize)]
    struct Failure {
        counted: Counted,
    }
    serde_json::from_slice::<Failure>(body).ok().map(|failure| failure.counted)
}

/// Indices of the refused rows; `None` if the answer does not account for every row.
fn rejected_rows(body: &[u8], rows: usize) -> Option<Vec<usize>> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        response: Accounting,
    }
    #[derive(serde::Deserialize)]
    struct Accounting {
        accepted: usize,
        rejected: usize,
        #[serde(default)]
        errors: Vec<RowError>,
    }
    #[derive(serde::Deserialize)]
    struct RowError {
        index: usize,
    }
    let Envelope { response } = serde_json::from_slice(body).ok()?;
    let indices: Vec<usize> = response.errors.iter().map(|error| error.index).collect();
    (response.accepted + response.rejected == rows && indices.len() == response.rejected).then_some(indices)
}
