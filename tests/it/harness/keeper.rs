//! A server of a test in a folder of its own: it ends with the test process, however that ends.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::packages;

/// Longest wait for a server to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Less room than this, and a server that is meant to be in memory goes to the disk. Bytes.
const IN_MEMORY_MIN: u64 = 3 << 30;

/// Starts the server and ends it when the pipe on standard input closes, which the kernel does
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

/// Who runs servers; only root has to be somebody else.
pub type User = Option<(u32, u32)>;

/// A running server and what keeps it.
pub struct Kept {
    keeper: Child,
    _lifeline: ChildStdin,
    pub server: u32,
}

impl Kept {
    /// Runs `program` with `arguments` as `user`; what it says goes to `server.log` in the folder.
    pub fn start(user: User, folder: &Path, program: &Path, arguments: &[&str]) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("server.log"));
        let mut shell = command(user, "sh");
        shell.args(["-c", KEEPER, "keeper"]).arg(folder).arg(program).args(arguments);
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.expect("the server's log"));
        let mut keeper = shell.spawn().expect("a shell to start the server");
        let lifeline = keeper.stdin.take().unwrap();
        let mut line = String::new();
        let mut byte = [0];
        let mut stdout = keeper.stdout.take().unwrap();
        while stdout.read(&mut byte).expect("the server's id") == 1 && byte != [b'\n'] {
            line.push(char::from(byte[0]));
        }
        let server = line.parse().expect("the server's id");
        Self { keeper, _lifeline: lifeline, server }
    }

    /// The server and its children, which have none of their own.
    pub fn family(&self) -> Vec<u32> {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let children = pids.filter(|pid| stat(*pid).is_some_and(|(_, parent)| parent == self.server));
        std::iter::once(self.server).chain(children).collect()
    }

    /// After something that ends the server.
    pub fn wait(self) {
        let Self { mut keeper, _lifeline, .. } = self;
        // The keeper waits for the server, so its end is the server's.
        wait_until("the server ends", || keeper.try_wait().expect("wait for the keeper").is_some());
    }

    /// `kill -9` for the server and all its children.
    pub fn kill(self) {
        let family = self.family();
        signal("KILL", &family);
        self.wait();
        // A child that still ends would hold what the next start needs.
        wait_until("all processes of the server are gone", || !family.iter().any(|pid| lives(*pid)));
    }
}

/// A folder that belongs to `user`.
pub fn folder(prefix: &str, user: User) -> tempfile::TempDir {
    folder_in(&std::env::temp_dir(), prefix, user)
}

/// The same, in memory where there is room for it.
pub fn folder_in_memory(prefix: &str, user: User) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |space| space.f_bavail * space.f_frsize);
    if room < IN_MEMORY_MIN {
        return folder(prefix, user);
    }
    folder_in(memory, prefix, user)
}

fn folder_in(parent: &Path, prefix: &str, user: User) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(parent).expect("a temporary folder");
    if let Some((uid, gid)) = user {
        chown(folder.path(), Some(uid), Some(gid)).expect("chown");
    }
    folder
}

pub fn command(user: User, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    // The test runner's own folder may be closed to the server's user. Its own group keeps Ctrl-C away.
    command.current_dir("/").env("LC_ALL", "C").process_group(0);
    // A server that connects to another one looks there for certificates.
    command.env("HOME", "/");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn signal(signal: &str, pids: &[u32]) {
    // Some child may have ended meanwhile, so the outcome says nothing.
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -{signal} \"$@\" 2> /dev/null"), "kill"])
        .args(pids.iter().map(u32::to_string))
        .status();
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().unwrap().port()
}

/// PostgreSQL and PgBouncer refuse to run as root.
pub fn other_user_when_root() -> User {
    if !packages::is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let ids = ["postgres", "nobody"].iter().find_map(|wanted| {
        let fields: Vec<&str> =
            users.lines().map(|line| line.split(':').collect()).find(|f: &Vec<&str>| f[0] == *wanted)?;
        Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
    });
    Some(ids.expect("a user `postgres` or `nobody` to run servers"))
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
