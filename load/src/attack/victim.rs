//! The node that is attacked: a process of its own on an empty folder, gone with this value.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use super::client::Client;

/// A name is long, so that lists are.
const NAME_BYTES: usize = 200;

pub(super) struct Victim {
    pub(super) address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Victim {
    pub(super) fn start(program: Option<&Path>) -> anyhow::Result<Self> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe()?.with_file_name("event-tracker"),
        };
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(&program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
        command.current_dir(folder.path()).env_clear().stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("can't start {}", program.display()))?;
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().context("it has no output")?);
        output.read_line(&mut line)?;
        let address = line.split_once("http://").and_then(|(_, rest)| rest.split([',', '/', ' ']).next()?.parse().ok());
        // A closed pipe would end it at its next line.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let victim = Self { address: address.unwrap_or_else(|| ([0; 4], 0).into()), child, _folder: folder };
        anyhow::ensure!(address.is_some(), "the service did not start: {line:?}");
        Ok(victim)
    }

    /// Counts so many long names, and waits until they are in the store.
    pub(super) fn fill(&self, names: usize) -> anyhow::Result<()> {
        let mut client = Client::connect(self.address, None)?;
        let numbers: Vec<usize> = (0..names.max(1)).collect();
        for numbers in numbers.chunks(20_000) {
            let names = numbers.iter().map(|number| format!("\"{number:0>NAME_BYTES$}\""));
            let body = format!("[{}]", names.collect::<Vec<_>>().join(","));
            let status = client.post("/api/events?ack=store", "application/json", &body)?;
            anyhow::ensure!(status == 200, "the names are answered {status}");
        }
        anyhow::ensure!(client.post("/api/events/honest?ack=store", "", "")? == 201, "the event is not counted");
        Ok(())
    }

    /// What it has in memory, in bytes.
    pub(super) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        kib.map_or(0, |kib: u64| kib * 1024)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
