//! The programs, as people call them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub fn event_load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_event-load")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

pub fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

/// The service itself. `cargo test --workspace` has built it.
pub fn service() -> PathBuf {
    let load = Path::new(env!("CARGO_BIN_EXE_event-load"));
    let service = load.with_file_name("event-tracker");
    if !service.exists() {
        let profile: &[&str] = if load.parent().unwrap().ends_with("release") { &["--release"] } else { &[] };
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "event-tracker"]).args(profile);
        build.arg("--target-dir").arg(load.ancestors().nth(2).unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().unwrap().success());
    }
    service
}
