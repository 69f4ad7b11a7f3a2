//! A real PostgreSQL for one world: started on loopback, frozen, killed, set back to an earlier copy of its files, and
//! replaced by its standby.

use std::fs::File;
use std::io::Write as _;
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
    /// It follows the server, and has what it had a moment ago.
    standby: Mutex<Option<Child>>,
    sweeper: Arc<Sweeper>,
}

impl Postgres {
    /// A new cluster in a folder, running.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub fn create(folder: &Path, sweeper: &Arc<Sweeper>) -> anyhow::Result<Self> {
        let programs = programs().context("PostgreSQL (initdb, postgres, pg_ctl, pg_isready) is not installed")?;
        let user = process::other_user_when_root()?;
        process::folder_of(user, folder)?;
        let port = process::free_port()?;
        let (folder, sweeper) = (folder.to_owned(), Arc::clone(sweeper));
        let (server, standby) = <(Mutex<_>, Mutex<_>)>::default();
        let postgres = Self { programs, user, folder, port, server, standby, sweeper };
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

    fn of_standby(&self) -> PathBuf {
        self.folder.join("standby")
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
        *server = Some(self.spawn(&self.data(), self.port, "server.log")?);
        drop(server);
        self.wait_until_ready()
    }

    fn spawn(&self, data: &Path, port: u16, log: &str) -> anyhow::Result<Child> {
        let log = File::options().create(true).append(true).open(self.folder.join(log))?;
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(data).arg("-k").arg(&self.folder).args(["-h", "127.0.0.1", "-p"]);
        postgres.arg(port.to_string());
        for setting in [
            "max_connections=200",
            "max_wal_size=64MB",
            "min_wal_size=32MB",
            "restart_after_crash=on",
            // Nothing of a server that was killed is left outside of its folder.
            "dynamic_shared_memory_type=mmap",
            // A standby that was cut off for some time finds what it lacks.
            "wal_keep_size=256MB",
            "wal_retrieve_retry_interval=50",
        ] {
            postgres.args(["-c", setting]);
        }
        let child = postgres.stdout(Stdio::null()).stderr(log).spawn().context("can't start postgres")?;
        self.sweeper.started(child.id());
        Ok(child)
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
        // One that was started just now would outlive it, and hold what the next start needs.
        let family = self.freeze();
        family.iter().for_each(|pid| signal(*pid, Signal::KILL));
        self.wait()?;
        // A child that still ends would hold that, too.
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
        self.wait_for(&self.server)
    }

    fn wait_for(&self, which: &Mutex<Option<Child>>) -> anyhow::Result<()> {
        let Some(mut server) = which.lock().take() else { return Ok(()) };
        let ended = wait_until("PostgreSQL ends", PATIENCE, || matches!(server.try_wait(), Ok(Some(_))));
        if ended.is_ok() {
            self.sweeper.ended(server.id());
        } else {
            *which.lock() = Some(server);
        }
        ended
    }

    fn stop_standby(&self, how: Signal) -> anyhow::Result<()> {
        if let Some(standby) = &*self.standby.lock() {
            signal(standby.id(), how);
        }
        self.wait_for(&self.standby)
    }

    /// Nothing answers any more, but connections stay open.
    pub fn freeze(&self) -> Vec<u32> {
        self.server.lock().as_ref().map(Child::id).map_or_else(Vec::new, process::freeze_family)
    }

    /// One of its children, by any number.
    #[must_use]
    pub fn child(&self, number: usize) -> Option<u32> {
        let family = self.family();
        (family.len() > 1).then(|| family[1 + number % (family.len() - 1)])
    }

    /// Keeps a copy of the files, and lets a standby follow that begins with another one. It is stopped for that, and
    /// started again.
    ///
    /// # Errors
    /// When they can't be copied.
    pub fn save(&self) -> anyhow::Result<()> {
        self.stop_standby(Signal::QUIT)?;
        self.stop(true)?;
        for copy in [self.saved(), self.of_standby()] {
            remove(&copy)?;
            copy_folder(&self.data(), &copy)?;
        }
        self.start()?;
        let standby = self.of_standby();
        let primary = format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\n", self.port);
        File::options().append(true).open(standby.join("postgresql.auto.conf"))?.write_all(primary.as_bytes())?;
        // The server's user can read it, and removes it when it becomes the first.
        File::create(standby.join("standby.signal"))?;
        self.start_standby()
    }

    #[must_use]
    pub fn has_standby(&self) -> bool {
        self.standby.lock().is_some()
    }

    fn start_standby(&self) -> anyhow::Result<()> {
        *self.standby.lock() = Some(self.spawn(&self.of_standby(), process::free_port()?, "standby.log")?);
        Ok(())
    }

    /// Goes on with what the standby has of it, which was away for the last `lag`. `meanwhile`, when it is down and
    /// before that.
    ///
    /// # Errors
    /// When the standby can't take its place.
    pub fn promote_standby(&self, lag: Duration, meanwhile: impl FnOnce()) -> anyhow::Result<()> {
        self.stop_standby(Signal::INT)?;
        std::thread::sleep(lag);
        self.kill()?;
        meanwhile();
        self.start_standby()?;
        // Not as soon as its process is there.
        wait_until("the standby takes the place", PATIENCE, || {
            let mut promote = self.command("pg_ctl");
            run(promote.args(["promote", "-s", "-w", "-D"]).arg(self.of_standby())).is_ok()
        })?;
        self.stop_standby(Signal::INT)?;
        remove(&self.data())?;
        std::fs::rename(self.of_standby(), self.data()).context("the standby can't take the place")?;
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
        // Other than by a kill, they take their shared memory along.
        let _ = self.stop_standby(Signal::QUIT);
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
    let needed = ["initdb", "postgres", "pg_ctl", "pg_isready"];
    folders.find(|folder| needed.iter().all(|program| folder.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn execute(postgres: &Postgres, sql: &str) -> anyhow::Result<()> {
        let mut psql = postgres.command("psql");
        run(psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-d", &Postgres::url(postgres.port()), "-c", sql]))
    }

    #[test]
    fn a_standby_takes_the_place_again_and_again_with_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let sweeper = Arc::new(Sweeper::start(folder.path()).unwrap());
        let postgres = Postgres::create(&folder.path().join("postgres"), &sweeper).unwrap();
        execute(&postgres, "create table promotions (number int)").unwrap();
        for before in 0..2 {
            postgres.save().unwrap();
            let mut is_down = false;
            postgres.promote_standby(Duration::ZERO, || is_down = execute(&postgres, "select").is_err()).unwrap();
            assert!(is_down && !postgres.has_standby());
            let expected = format!("select 1 / cast(count(*) = {before} as int) from promotions");
            execute(&postgres, &expected).unwrap();
            execute(&postgres, "insert into promotions values (1)").unwrap();
        }
    }
}
