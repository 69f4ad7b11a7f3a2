//! Open files: how many the process may have, and how many of them clients may take.

/// For the files of the journal, the log, the runtime and whatever is opened for a moment.
const RESERVED: u64 = 64;
/// A connection to SQLite is up to three files, one to PostgreSQL is a socket.
const RESERVED_PER_STORE_CONNECTION: u64 = 3;

/// Raises the limit of open files as far as the system lets us, and gives how many connections of
/// clients fit below it: `connections_max`, unless that is more than what journal, store and `others` leave. Then
/// the log warns.
#[must_use]
pub fn fit(connections_max: usize, store_connections: usize, others: usize) -> usize {
    let Some(files_max) = raise() else { return connections_max };
    let fitting = fitting(files_max, connections_max, store_connections, others);
    if fitting < connections_max {
        tracing::warn!(
            open_files_max = files_max,
            connections_max = fitting,
            "Too few files may be open for http.connections_max = {connections_max}; raise the limit (ulimit -n, LimitNOFILE)"
        );
    }
    fitting
}

fn fitting(files_max: u64, connections_max: usize, store_connections: usize, others: usize) -> usize {
    let reserved = RESERVED + RESERVED_PER_STORE_CONNECTION * store_connections as u64 + others as u64;
    // Where there is next to nothing, half of it.
    let left = files_max.saturating_sub(reserved).max(files_max / 2).max(1);
    usize::try_from(left).unwrap_or(usize::MAX).min(connections_max)
}

/// Gives the limit after raising it; `None`: there is none.
#[cfg(target_os = "linux")]
fn raise() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current?;
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(_) => Some(soft),
    }
}

#[cfg(not(target_os = "linux"))]
fn raise() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_journal_and_the_store_leave() {
        assert_eq!(fitting(1_048_576, 10_000, 4, 0), 10_000);
        assert_eq!(fitting(256, 10_000, 4, 0), 256 - 64 - 12);
        assert_eq!(fitting(1_024, 10_000, 4, 256), 1_024 - 64 - 12 - 256);
        assert_eq!(fitting(256, 100, 4, 0), 100);
        assert_eq!(fitting(1_000, 10_000, 1_000, 0), 500, "never nothing");
        assert_eq!(fitting(0, 10_000, 4, 0), 1);
    }
}
