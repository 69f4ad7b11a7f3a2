//! From the driver's errors to the two decisions of [`StoreError`].

use tokio_postgres::error::SqlState;

use crate::store::StoreError;

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(answer) = error.as_db_error() else {
            return Self::Unavailable(with_sources(&error));
        };
        // Neither detail nor statement: they repeat names and values.
        let text = format!("{} (SQLSTATE {})", answer.message(), answer.code().code());
        if may_pass_by_itself(answer.code()) { Self::Unavailable(text) } else { Self::Rejected(text) }
    }
}

/// Whether the same request may succeed later without anybody's doing.
fn may_pass_by_itself(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    match class {
        // Connection, transaction rollback (deadlock, serialization), resources, object not in the
        // prerequisite state (lock time-out), operator intervention (cancel, shutdown), system.
        "08" | "40" | "53" | "55" | "57" | "58" => true,
        // Read-only after a failover, ended while idle in a transaction.
        "25" => true,
        "XX" => *code != SqlState::DATA_CORRUPTED && *code != SqlState::INDEX_CORRUPTED,
        _ => false,
    }
}

fn with_sources(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(reason) = source {
        let reason_text = reason.to_string();
        // Some errors already print what they wrap.
        if !text.ends_with(&reason_text) {
            text = format!("{text}: {reason_text}");
        }
        source = reason.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_by_itself_is_tried_again_and_the_rest_is_told() {
        for code in ["08006", "25006", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "57P03", "XX000"]
        {
            assert!(may_pass_by_itself(&SqlState::from_code(code)), "{code}");
        }
        for code in ["22003", "23505", "23514", "28P01", "3D000", "42501", "42P01", "54000", "XX001"] {
            assert!(!may_pass_by_itself(&SqlState::from_code(code)), "{code}");
        }
    }
}
