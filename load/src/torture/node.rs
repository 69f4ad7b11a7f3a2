//! One node of a world: a data folder, and the process of the service on it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::http::{Address, Client};
use super::process::{self, Sweeper, Victim};
use super::proxy::Proxy;
use crate::scenario::AckLevel;
use crate::target::Usage;

/// What all nodes of a world have in common.
#[derive(Clone, Debug)]
pub struct Service {
    pub program: PathBuf,
    pub ack: AckLevel,
}

/// Where the process of a data folder listens, once it does.
#[derive(Clone, Copy, Default)]
struct Listening {
    life: u64,
    socket: Option<SocketAddr>,
}

pub struct Node {
    /// Of its data folder.
    pub number: usize,
    pub is_copy: bool,
    /// What holds its data folder: perhaps a small file system.
    pub place: PathBuf,
    pub proxy: Option<Proxy>,
    /// It will not be started again.
    pub retired: AtomicBool,
    service: Service,
    url: String,
    victim: Victim,
    listening: Arc<Mutex<Listening>>,
    sweeper: Arc<Sweeper>,
}

impl Node {
    pub fn new(
        number: usize,
        is_copy: bool,
        place: PathBuf,
        service: Service,
        (url, proxy, victim): (String, Option<Proxy>, Victim),
        sweeper: &Arc<Sweeper>,
    ) -> Self {
        let (retired, listening) = (AtomicBool::new(false), Arc::default());
        let sweeper = Arc::clone(sweeper);
        Self { number, is_copy, place, proxy, retired, service, url, victim, listening, sweeper }
    }

    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.place.join("data")
    }

    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    fn address(&self) -> Option<Address> {
        let Listening { life, socket } = *self.listening.lock();
        socket.map(|socket| Address { socket, life })
    }

    /// Connects `client` to its process; `None` when there is none that can be reached.
    pub fn reach(&self, client: &mut Client) -> Option<Address> {
        self.address().filter(|address| client.connect(*address))
    }

    #[must_use]
    pub fn runs(&self) -> bool {
        self.victim.0.lock().is_some()
    }

    /// A command of the program on a data folder, with settings under which much happens in a short time.
    fn command(&self, arguments: &[&str], url: &str) -> Command {
        let mut command = Command::new(&self.service.program);
        command.args(arguments).arg("--data-dir").arg(self.data_dir()).current_dir("/").env_clear();
        command.env("DATABASE_URL", url);
        // A node does not wait for the store unless it is asked to.
        let ack = if self.service.ack == AckLevel::Store { AckLevel::Journal } else { self.service.ack };
        for (key, value) in [
            ("JOURNAL__ACK", ack.name()),
            ("JOURNAL__SEGMENT_BYTES_MAX", "1048576"),
            ("JOURNAL__KEEP_COMMITTED_BYTES_MAX", "67108864"),
            ("FLUSH__INTERVAL_MS", "60"),
            ("FLUSH__RETRY_BACKOFF_MAX_MS", "30"),
            ("FLUSH__SHUTDOWN_TIMEOUT_MS", "3000"),
            ("STORE__CONNECT_TIMEOUT_MS", "1000"),
            ("STORE__STATEMENT_TIMEOUT_MS", "2000"),
            ("STORE__LOCK_TIMEOUT_MS", "1000"),
            ("STORE__FOLD_INTERVAL_MS", "150"),
            ("HTTP__STORE_ACK_TIMEOUT_MS", "3000"),
            ("HTTP__DRAIN_TIMEOUT_MS", "3000"),
            ("HTTP__WORKERS", "2"),
        ] {
            command.env(format!("EVENT_TRACKER__{key}"), value);
        }
        command
    }

    /// Starts a process, the `life`th of its folder; where it listens is known some time later.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, life: u64) -> anyhow::Result<()> {
        let mut process = self.victim.0.lock();
        if process.is_some() || self.is_retired() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.place.with_extension("log"))?;
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"], &self.url);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("can't start the service")?;
        self.sweeper.started(child.id());
        let (output, listening) = (child.stdout.take(), Arc::clone(&self.listening));
        *listening.lock() = Listening { life, socket: None };
        *process = Some(child);
        drop(process);
        // It reads to the end: a closed pipe would end the service at its next line.
        std::thread::spawn(move || {
            let Some(mut output) = output.map(BufReader::new) else { return };
            let mut line = String::new();
            let _ = output.read_line(&mut line);
            let socket =
                line.split_once("http://").and_then(|(_, rest)| rest.split([',', '/', ' ']).next()?.parse().ok());
            let mut listening = listening.lock();
            // Its line may be read when another process runs already.
            if listening.life == life {
                listening.socket = socket;
            }
            drop(listening);
            let _ = std::io::copy(&mut output, &mut std::io::sink());
        });
        Ok(())
    }

    /// `kill -9`, and waits for its end; `false` if it was gone already.
    pub fn kill(&self) -> bool {
        let was_there = self.victim.kill();
        self.wait(Duration::from_secs(30));
        was_there
    }

    /// Waits for its end, however that comes.
    pub fn wait(&self, patience: Duration) -> Option<ExitStatus> {
        let mut status = None;
        let ended = process::wait_until("the service ends", patience, || {
            let mut process = self.victim.0.lock();
            let Some(child) = process.as_mut() else { return true };
            if let Ok(Some(ended)) = child.try_wait() {
                self.sweeper.ended(child.id());
                status = Some(ended);
                *process = None;
                *self.listening.lock() = Listening { life: u64::MAX, socket: None };
                return true;
            }
            false
        });
        ended.ok().and(status)
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.victim.signal(Signal::TERM);
    }

    pub fn freeze(&self) -> bool {
        self.victim.signal(Signal::STOP)
    }

    pub fn thaw(&self) {
        self.victim.signal(Signal::CONT);
    }

    /// Lets it have so many open files; gives how many it could have before.
    pub fn limit_files(&self, files: u64) -> Option<u64> {
        let process = self.victim.0.lock();
        let pid = Pid::from_raw(i32::try_from(process.as_ref()?.id()).ok()?);
        let limit = Rlimit { current: Some(files), maximum: rustix::process::getrlimit(Resource::Nofile).maximum };
        rustix::process::prlimit(pid, Resource::Nofile, limit).ok()?.current
    }

    /// How many files it has open.
    pub fn open_files(&self) -> Option<u64> {
        let pid = self.victim.0.lock().as_ref().map(Child::id)?;
        Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
    }

    /// What `event-tracker audit` says of the store and of the data folder.
    ///
    /// # Errors
    /// When it can't be started or says nothing that can be understood.
    pub fn audit(&self, url: &str) -> anyhow::Result<Audited> {
        let mut audit = self.command(&["audit", "--json"], url);
        // It is about what is there, not about how soon a busy machine tells.
        for key in ["CONNECT", "STATEMENT", "LOCK"] {
            audit.env(format!("EVENT_TRACKER__STORE__{key}_TIMEOUT_MS"), "30000");
        }
        let output = audit.output().context("can't start the audit")?;
        let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
        serde_json::from_slice(&output.stdout).with_context(|| format!("the audit says: {}", said()))
    }

    /// The names of its segments, which change when one appears or is committed.
    #[must_use]
    pub fn segments(&self) -> Vec<std::ffi::OsString> {
        let files = std::fs::read_dir(self.data_dir().join("journal")).into_iter().flatten().flatten();
        let mut names: Vec<_> = files.map(|file| file.file_name()).collect();
        names.sort_unstable();
        names
    }

    /// Whether one of its processes has panicked.
    #[must_use]
    pub fn has_panicked(&self) -> bool {
        let mut log = Vec::new();
        let read = File::open(self.place.with_extension("log")).and_then(|mut file| file.read_to_end(&mut log));
        read.is_ok() && memchr::memmem::find(&log, b"panicked").is_some()
    }
}

#[derive(serde::Deserialize, Debug)]
pub struct Audited {
    pub balanced: bool,
    pub rows: i128,
    pub pending: i128,
    pub missing: i128,
}

/// The program beside this one, or the one that was named.
///
/// # Errors
/// When it is not there.
pub fn program(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let program = match named {
        Some(named) => std::path::absolute(named)?,
        None => std::env::current_exe()?.with_file_name("event-tracker"),
    };
    if program.is_file() {
        return Ok(program);
    }
    let path = program.display();
    Err(Usage(format!("{path} is not there: build it with cargo build --workspace, or name it with --program")).into())
}
