//! From the driver's errors to the decisions of [`StoreError`].

use tokio_postgres::error::SqlState;

use crate::store::StoreError;

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(answer) = error.as_db_error() else {
            return if is_bad_certificate(&error) {
                Self::Refused(format!("{}: see sslmode and sslrootcert", with_sources(&error)))
            } else {
                Self::Unavailable(with_sources(&error))
            };
        };
        // Neither detail nor statement: they repeat names and values.
        let text = format!("{} (SQLSTATE {})", answer.message(), answer.code().code());
        match remedy(answer.code()) {
            Some(remedy) => Self::Refused(format!("{text}: {remedy}")),
            None if may_pass_by_itself(answer.code()) => Self::Unavailable(text),
            None => Self::Rejected(text),
        }
    }
}

/// What somebody has to do before this program is let in.
fn remedy(code: &SqlState) -> Option<&'static str> {
    match code.code() {
        code if code.starts_with("28") => {
            Some("check the user and the password in the store's URL, and the server's pg_hba.conf")
        }
        "3D000" => Some("create the database, or name another one in the store's URL"),
        "3F000" => Some("create the schema that the role's search_path names, or set the search_path"),
        "42501" => Some("grant the role that right, or name another user in the store's URL"),
        _ => None,
    }
}

/// Whether a row, and not the statement, is what the database does not want: a value out of range, a
/// constraint, a trigger.
pub(super) fn is_about_rows(code: &SqlState) -> bool {
    matches!(code.code().get(..2), Some("22" | "23" | "44" | "54" | "P0"))
}

fn is_bad_certificate(error: &tokio_postgres::Error) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidCertificate(_)))
}

/// Whether a connection that was tried with encryption may come about without: TLS itself failed, or the
/// server lets nobody in that way.
pub(super) fn may_work_in_plain_text(error: &tokio_postgres::Error) -> bool {
    tls_error(error).is_some() || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

fn tls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(reason) = source {
        let wrapped = reason.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = reason.downcast_ref().or_else(|| wrapped.and_then(|wrapped| wrapped.downcast_ref()));
        if tls.is_some() {
            return tls;
        }
        source = reason.source();
    }
    None
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
        for code in ["22003", "23505", "23514", "42P01", "54000", "XX001"] {
            assert!(!may_pass_by_itself(&SqlState::from_code(code)), "{code}");
        }
        for code in ["28000", "28P01", "3D000", "3F000", "42501"] {
            assert!(remedy(&SqlState::from_code(code)).is_some(), "{code}");
        }
    }
}
