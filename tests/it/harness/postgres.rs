//! A throw-away PostgreSQL cluster: `initdb` into a temporary folder, a free port on loopback, gone with
//! the test process however that ends.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use super::packages;

/// Longest wait for the cluster to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the postmaster and ends it when the pipe on standard input closes, which the kernel does
/// when the test process is gone: no panic and no Ctrl-C leaves a server or its folder behind.
/// Arguments: the folder, then the server's command. SIGCONT, since a test may have frozen the server.
const KEEPER: &str = r#"
folder=$1
shift
exec 3<&0
"$@" < /dev/null >&2 3<&- &
server=$!
echo $server
exec > /dev/null
{ read -r _ <&3; touch "$folder/abandoned"; kill -CONT $server; kill -QUIT $server; } 2> /dev/null &
watcher=$!
wait $server
test -e "$folder/abandoned" && rm -rf "$folder"
kill $watcher 2> /dev/null
"#;

pub struct Cluster {
    bin: PathBuf,
    // The order matters: the server ends before its folder is removed.
    server: Mutex<Option<Server>>,
    port: u16,
    folder: tempfile::TempDir,
    /// Who runs the server; only root has to be somebody else.
    user: Option<(u32, u32)>,
}

struct Server {
    keeper: Child,
    _lifeline: ChildStdin,
    postmaster: u32,
}

static DATABASES: AtomicUsize = AtomicUsize::new(0);

impl Cluster {
    /// The cluster that tests share which leave it running.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::private)
    }

    /// A cluster for one test, to be stopped, killed and frozen. Started.
    pub fn private() -> Self {
        let bin = programs();
        let folder = tempfile::Builder::new().prefix("event-tracker-pg").tempdir().expect("a temporary folder");
        let user = other_user_when_root();
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).expect("chown");
        }
        let cluster = Self { bin, server: Mutex::new(None), port: free_port(), folder, user };
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
        let postgres = self.bin.join("postgres");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("server.log"))
            .expect("the server's log");
        let mut shell = self.command_of("sh");
        shell.args(["-c", KEEPER, "keeper"]).arg(self.folder.path()).arg(postgres);
        shell.arg("-D").arg(self.folder.path().join("data"));
        shell.arg("-k").arg(self.folder.path());
        shell.args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-c", "fsync=on", "-c", "max_connections=200"]);
        let mut keeper =
            shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().expect("a shell to start postgres");
        let lifeline = keeper.stdin.take().unwrap();
        let mut line = String::new();
        let mut byte = [0];
        let mut stdout = keeper.stdout.take().unwrap();
        while stdout.read(&mut byte).expect("the postmaster's id") == 1 && byte != [b'\n'] {
            line.push(char::from(byte[0]));
        }
        let postmaster = line.parse().expect("the postmaster's id");
        *server = Some(Server { keeper, _lifeline: lifeline, postmaster });
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
        signal_processes(signal, &[server.postmaster]);
        end(server);
    }

    /// `kill -9` for the postmaster and all its children.
    pub fn kill(&self) {
        let server = self.server.lock().unwrap().take().expect("the cluster does not run");
        let family = family(server.postmaster);
        signal_processes("KILL", &family);
        end(server);
        // A child that still ends would hold the shared memory that the next start needs.
        wait_until("all processes of the cluster are gone", || !family.iter().any(|pid| lives(*pid)));
    }

    /// Nothing answers any more, but connections stay open and new ones are still taken by the kernel.
    pub fn freeze(&self) {
        signal_processes("STOP", &self.processes());
    }

    pub fn thaw(&self) {
        signal_processes("CONT", &self.processes());
    }

    fn processes(&self) -> Vec<u32> {
        family(self.server.lock().unwrap().as_ref().expect("the cluster does not run").postmaster)
    }

    /// A fresh, empty database; gives its name.
    pub async fn create_database(&self) -> String {
        self.create_database_with("").await
    }

    /// The same with options of CREATE DATABASE, such as `encoding 'LATIN1'`.
    pub async fn create_database_with(&self, options: &str) -> String {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let client = self.connect("postgres").await;
        client.batch_execute(&format!("create database {name} template template0 {options}")).await.expect("create");
        name
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
        let mut command = Command::new(program);
        // The test runner's own folder may be closed to the server's user. Its own group keeps Ctrl-C away.
        command.current_dir("/").env("LC_ALL", "C").process_group(0);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let server = self.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(server) = server {
            signal_processes("KILL", &family(server.postmaster));
            end(server);
        }
    }
}

fn end(server: Server) {
    let Server { mut keeper, _lifeline, .. } = server;
    // The keeper waits for the postmaster, so its end is the postmaster's.
    wait_until("the postmaster ends", || keeper.try_wait().expect("wait for the keeper").is_some());
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Fields of `/proc/PID/stat` behind the name, which may hold anything: the state, the parent …
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

/// The process and its children; PostgreSQL's have none of their own.
fn family(postmaster: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = pids.filter(|pid| stat(*pid).is_some_and(|(_, parent)| parent == postmaster));
    std::iter::once(postmaster).chain(children).collect()
}

fn signal_processes(signal: &str, pids: &[u32]) {
    // Some child may have ended meanwhile, so the outcome says nothing.
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -{signal} \"$@\" 2> /dev/null"), "kill"])
        .args(pids.iter().map(u32::to_string))
        .status();
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().unwrap().port()
}

/// PostgreSQL refuses to run as root.
fn other_user_when_root() -> Option<(u32, u32)> {
    if !packages::is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let ids = ["postgres", "nobody"].iter().find_map(|wanted| {
        let fields: Vec<&str> =
            users.lines().map(|line| line.split(':').collect()).find(|f: &Vec<&str>| f[0] == *wanted)?;
        Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
    });
    Some(ids.expect("a user `postgres` or `nobody` to run PostgreSQL"))
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
fn programs() -> PathBuf {
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
