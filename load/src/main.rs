//! `event-load`: see `event-load --help`, and `lib.rs` for the map of the code.

use std::process::ExitCode;

fn main() -> ExitCode {
    event_load::cli::main()
}
