//! The load tool, as people run it beside the service.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{TestApp, eventually, signal};

/// Ends with the test.
pub struct Load {
    child: Child,
    folder: tempfile::TempDir,
}

/// What the load tool knows of one event.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
pub struct Known {
    pub acknowledged: u64,
    /// What may have been counted on top of that: nobody answered.
    pub unknown: u64,
}

impl Load {
    /// Plays a scenario until it is stopped, whatever becomes of the service. Names begin with `load-`.
    pub fn start(app: &TestApp, scenario: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("event-tracker-load").tempdir().unwrap();
        let path = folder.path().join("scenario.toml");
        std::fs::write(&path, scenario).unwrap();
        let report = std::fs::File::create(folder.path().join("report.json")).unwrap();
        let mut command = Command::new(program());
        command.arg("run").arg(path).args(["--target", &app.url(""), "--prefix", "load-"]);
        // Renamed and corrected events are for the test to look at.
        command.args(["--json", "--list-events", "--no-verify", "--max-errors", "1000000000"]);
        Self { child: command.stdin(Stdio::null()).stdout(report).spawn().unwrap(), folder }
    }

    /// Lets it finish its requests; gives its account of each event.
    pub async fn stop(mut self) -> BTreeMap<String, Known> {
        signal(self.child.id(), "TERM");
        let child = RefCell::new(&mut self.child);
        eventually("the load tool to end", async || child.borrow_mut().try_wait().unwrap().is_some()).await;
        let report = std::fs::read_to_string(self.folder.path().join("report.json")).unwrap();
        assert!(self.child.wait().unwrap().success(), "{report}");
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        serde_json::from_value(report["events"].clone()).unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `cargo test --workspace` has built it; other tests only need it now.
fn program() -> PathBuf {
    let service = Path::new(env!("CARGO_BIN_EXE_event-tracker"));
    let program = service.with_file_name("event-load");
    if !program.exists() {
        let profile: &[&str] = if service.parent().unwrap().ends_with("release") { &["--release"] } else { &[] };
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "event-load"]).args(profile);
        build.arg("--target-dir").arg(service.ancestors().nth(2).unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().unwrap().success());
    }
    program
}
