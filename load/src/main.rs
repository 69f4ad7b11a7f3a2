//! `event-load`: see `event-load --help`, and `lib.rs` for the map of the code.

use std::process::ExitCode;

/// The service's. The bare server of the comparison is this program, and is to differ by the service only.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    event_load::cli::main()
}
