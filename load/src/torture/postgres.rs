//! A real PostgreSQL for one world: started on loopback, frozen, killed, and set back to an earlier copy of its files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use rustix::process::Signal;

use super::process::{self, Sweeper, User, command, copy_folder, run, signal, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Postgres {
    programs: PathBuf,
    user: User,
    folder: PathBuf,
    port: u16,
    server: Mutex<Option<Child>>,
    sweeper: Arc<Sweeper>,
}

impl Postgres {
    /// A new cluster in a folder, running.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub fn create(folder: &Path, sweeper: &Arc<Sweeper>) -> anyhow::Result<Self> {
        let programs = programs().context("PostgreSQL (initdb, postgres, pg_isready) is not installed")?;
        let user = process::other_user_when_root()?;
        process::folder_of(user, folder)?;
        let port = process::free_port()?;
        let (folder, sweeper) = (folder.to_owned(), Arc::clone(sweeper));
        let postgres = Self { programs, user, folder, port, server: Mutex::default(), sweeper };
        let mut initdb = postgres.command("initdb");
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", "C", "--no-sync", "-D"]);
        run(initdb.arg(postgres.data()))?;
        postgres.start()?;
        Ok(postgres)
    }

    /// The address of the server itself, or of a proxy in front of it.
    #[must_use]
    pub fn url(port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable")
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn command(&self, program: &str) -> Command {
        command(self.user, &self.programs.join(program))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn saved(&self) -> PathBuf {
        self.folder.join("saved")
    }

    /// Starts it, on the same port each time, and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&self) -> anyhow::Result<()> {
        let mut server = self.server.lock();
        if server.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.folder.join("server.log"))?;
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(self.data()).arg("-k").arg(&self.folder).args(["-h", "127.0.0.1", "-p"]);
        postgres.arg(self.port.to_string()).args(["-c", "max_connections=200", "-c", "max_wal_size=64MB"]);
        postgres.args(["-c", "min_wal_size=32MB", "-c", "restart_after_crash=on"]);
        // Nothing of a server that was killed is left outside of its folder.
        postgres.args(["-c", "dynamic_shared_memory_type=mmap"]);
        let child = postgres.stdout(Stdio::null()).stderr(log).spawn().context("can't start postgres")?;
        self.sweeper.started(child.id());
        *server = Some(child);
        drop(server);
        self.wait_until_ready()
    }

    /// # Errors
    /// When it takes no connections.
    pub fn wait_until_ready(&self) -> anyhow::Result<()> {
        let port = self.port.to_string();
        let is_ready = || {
            let ready = self.command("pg_isready").args(["-q", "-h", "127.0.0.1", "-p", &port]).status();
            ready.is_ok_and(|status| status.success())
        };
        wait_until("PostgreSQL takes connections", PATIENCE, is_ready)
    }

    fn family(&self) -> Vec<u32> {
        let server = self.server.lock().as_ref().map(Child::id);
        server.map_or_else(Vec::new, |server| [vec![server], process::children(server)].concat())
    }

    /// `kill -9` for all of it.
    ///
    /// # Errors
    /// When a process does not end.
    pub fn kill(&self) -> anyhow::Result<()> {
        let family = self.family();
        family.iter().for_each(|pid| signal(*pid, Signal::KILL));
        self.wait()?;
        // A child that still ends would hold what the next start needs.
        wait_until("PostgreSQL is gone", PATIENCE, || !family.iter().any(|pid| process::lives(*pid)))
    }

    /// `fast`: sessions are ended and the data is written; else as after a crash.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self, fast: bool) -> anyhow::Result<()> {
        if let Some(server) = self.family().first() {
            signal(*server, if fast { Signal::INT } else { Signal::QUIT });
        }
        self.wait()
    }

    fn wait(&self) -> anyhow::Result<()> {
        let Some(mut server) = self.server.lock().take() else { return Ok(()) };
        let ended = wait_until("PostgreSQL ends", PATIENCE, || matches!(server.try_wait(), Ok(Some(_))));
        if ended.is_ok() {
            self.sweeper.ended(server.id());
        } else {
            *self.server.lock() = Some(server);
        }
        ended
    }

    /// Nothing answers any more, but connections stay open.
    pub fn freeze(&self) -> Vec<u32> {
        let family = self.family();
        family.iter().for_each(|pid| signal(*pid, Signal::STOP));
        family
    }

    /// One of its children, by any number.
    #[must_use]
    pub fn child(&self, number: usize) -> Option<u32> {
        let family = self.family();
        (family.len() > 1).then(|| family[1 + number % (family.len() - 1)])
    }

    /// Keeps a copy of the files. It is stopped for that, and started again.
    ///
    /// # Errors
    /// When they can't be copied.
    pub fn save(&self) -> anyhow::Result<()> {
        self.stop(true)?;
        remove(&self.saved())?;
        copy_folder(&self.data(), &self.saved())?;
        self.start()
    }

    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.saved().exists()
    }

    /// Goes back to that copy. `meanwhile`, when it is down and before it has gone back.
    ///
    /// # Errors
    /// When the files can't be put back.
    pub fn set_back(&self, meanwhile: impl FnOnce()) -> anyhow::Result<()> {
        self.kill()?;
        meanwhile();
        remove(&self.data())?;
        copy_folder(&self.saved(), &self.data())?;
        self.start()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Other than by a kill, it takes its shared memory along.
        if self.stop(false).is_err() {
            let _ = self.kill();
        }
    }
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("can't remove {}", folder.display()))?;
    }
    Ok(())
}

/// The folder with the programs of the newest version.
fn programs() -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = installed.map(|entry| entry.path()).collect();
    versions.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = versions.into_iter().rev().map(|path| path.join("bin")).chain(std::env::split_paths(&paths));
    let needed = ["initdb", "postgres", "pg_isready"];
    folders.find(|folder| needed.iter().all(|program| folder.join(program).is_file()))
}
