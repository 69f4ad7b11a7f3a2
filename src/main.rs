//! The command line of event-tracker. What happens is in `event_tracker::commands`.

use std::process::ExitCode;

/// Many small, short-lived allocations on many threads: what it is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    event_tracker::private::create_private_files();
    event_tracker::telemetry::log_panics();
    // A panic has been logged as one line by then; it is a failure like any other.
    let code = std::panic::catch_unwind(event_tracker::commands::run).unwrap_or(ExitCode::from(1));
    event_tracker::telemetry::finish();
    code
}
