//! A throw-away PostgreSQL cluster: `initdb` into a temporary folder, a free port on loopback, gone with
//! the test process however that ends.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use tokio_postgres::NoTls;

use super::keeper::{self, Kept, run, wait_until};
use super::packages;

pub struct Cluster {
    bin: PathBuf,
    // The order matters: the server ends before its folder is removed.
    server: Mutex<Option<Kept>>,
    port: u16,
    folder: tempfile::TempDir,
    user: keeper::User,
    /// Beside those that every cluster has, such as `max_connections=300`.
    settings: &'static [&'static str],
}

static DATABASES: AtomicUsize = AtomicUsize::new(0);

impl Cluster {
    /// The cluster that tests share which leave it running.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::private)
    }

    /// The cluster of tests that need very many databases, one after the other.
    pub fn in_memory() -> &'static Self {
        static IN_MEMORY: OnceLock<Cluster> = OnceLock::new();
        IN_MEMORY.get_or_init(|| Self::create(keeper::folder_in_memory, &[]))
    }

    /// A cluster for one test, to be stopped, killed and frozen. Started.
    pub fn private() -> Self {
        Self::private_with(&[])
    }

    /// The same with settings of the server.
    pub fn private_with(settings: &'static [&'static str]) -> Self {
        Self::create(keeper::folder, settings)
    }

    fn create(folder: fn(&str, keeper::User) -> tempfile::TempDir, settings: &'static [&'static str]) -> Self {
        let bin = programs();
        let user = keeper::other_user_when_root();
        let folder = folder("event-tracker-pg", user);
        let cluster = Self { bin, server: Mutex::new(None), port: keeper::free_port(), folder, user, settings };
        let mut initdb = cluster.command("initdb");
        // Not "C": the tests prove that names are compared bytewise whatever the cluster's collation.
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", &unicode_locale(), "--no-sync", "-D"]);
        run(initdb.arg(cluster.folder.path().join("data")));
        cluster.start();
        cluster
    }

    /// Starts it, on the same port each time, and waits until it takes connections.
    pub fn start(&self) {
        let mut server = self.server.lock().unwrap();
        assert!(server.is_none(), "the cluster runs already");
        let (data, port) = (self.folder.path().join("data"), self.port.to_string());
        let (data, sockets) = (data.to_str().unwrap(), self.folder.path().to_str().unwrap());
        let where_ = ["-D", data, "-k", sockets, "-p", &port, "-h", "127.0.0.1"];
        let how = ["fsync=on", "max_connections=200"].iter().chain(self.settings).flat_map(|setting| ["-c", setting]);
        let arguments: Vec<&str> = where_.into_iter().chain(how).collect();
        let postgres = self.bin.join("postgres");
        *server = Some(Kept::start(self.user, self.folder.path(), &postgres, &arguments));
        drop(server);
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let port = self.port.to_string();
        let ready = || self.command("pg_isready").args(["-q", "-h", "127.0.0.1", "-p", &port]).status();
        wait_until("PostgreSQL takes connections", || ready().expect("pg_isready").success());
    }

    /// `fast`: sessions are ended, the data is written. `immediate`: as after a crash.
    pub fn stop(&self, mode: &str) {
        let signal = match mode {
            "fast" => "INT",
            "immediate" => "QUIT",
            other => panic!("no such mode of stopping: {other}"),
        };
        let server = self.server.lock().unwrap().take().expect("the cluster does not run");
        keeper::signal(signal, &[server.server]);
        server.wait();
    }

    /// `kill -9` for the postmaster and all its children.
    pub fn kill(&self) {
        self.server.lock().unwrap().take().expect("the cluster does not run").kill();
    }

    /// Nothing answers any more, but connections stay open and new ones are still taken by the kernel.
    pub fn freeze(&self) {
        keeper::signal("STOP", &self.processes());
    }

    pub fn thaw(&self) {
        keeper::signal("CONT", &self.processes());
    }

    fn processes(&self) -> Vec<u32> {
        self.server.lock().unwrap().as_ref().expect("the cluster does not run").family()
    }

    /// A fresh, empty database; gives its name.
    pub async fn create_database(&self) -> String {
        self.create_database_with("template template0").await
    }

    /// The same with options of CREATE DATABASE, such as `template template0 encoding 'LATIN1'`.
    pub async fn create_database_with(&self, options: &str) -> String {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let client = self.connect("postgres").await;
        client.batch_execute(&format!("create database {name} {options}")).await.expect("create");
        name
    }

    /// Ends the sessions in it, too.
    pub async fn drop_database(&self, name: &str) {
        let client = self.connect("postgres").await;
        client.batch_execute(&format!("drop database {name} with (force)")).await.expect("drop");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A plain connection for looking at and disturbing what the program does.
    pub async fn connect(&self, database: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await.expect("connect");
        tokio::spawn(async move {
            // A test that stops the server ends this with an error.
            let _ = connection.await;
        });
        client
    }

    /// Where the cluster lives; readable for the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a shell script in the cluster's folder, as the cluster's user.
    pub fn run_script(&self, script: &str) {
        run(self.command_of("sh").current_dir(self.folder.path()).args(["-c", script]));
    }

    fn command(&self, program: &str) -> Command {
        self.command_of(self.bin.join(program))
    }

    fn command_of(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        keeper::command(self.user, program)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let server = self.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(server) = server {
            server.kill();
        }
    }
}

/// A locale that does not sort bytewise where there is one.
fn unicode_locale() -> String {
    let output = Command::new("locale").arg("-a").output().map(|output| output.stdout).unwrap_or_default();
    let locales = String::from_utf8_lossy(&output).into_owned();
    let is_utf8 = |name: &&str| name.to_lowercase().replace('-', "").ends_with(".utf8");
    let sorted_by_language = locales.lines().filter(is_utf8).find(|name| !name.starts_with("C."));
    sorted_by_language.or_else(|| locales.lines().find(is_utf8)).unwrap_or("C").to_owned()
}

/// The folder with `initdb`, `postgres` and `pg_isready`.
pub fn programs() -> PathBuf {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| packages::needed(&["postgresql"], find_programs)).clone()
}

fn find_programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    versions.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    let mut folders = packages::folders(versions.into_iter().rev().map(|path| path.join("bin"))).into_iter();
    let needed = ["initdb", "postgres", "pg_isready"];
    folders.find(|folder| needed.iter().all(|program| folder.join(program).is_file()))
}
