//! Processes and folders of a run: started as the right user, signalled, and gone with the run however that ends.

use std::io::Write as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};

/// Reads what there is to clean up. When its input ends, because this program has ended in whatever way, it ends the
/// processes with their children, unmounts, and removes the folder.
const SWEEPER: &str = r#"
trap '' INT TERM HUP
folder=$1
pids= mounts=
while read -r what value; do
    case $what in
        pid) pids="$pids $value" ;;
        gone)
            left=
            for pid in $pids; do [ "$pid" = "$value" ] || left="$left $pid"; done
            pids=$left ;;
        mount) mounts="$mounts $value" ;;
    esac
done
for pid in $pids; do
    kill -KILL $(ps -o pid= --ppid "$pid") "$pid" 2> /dev/null
done
for mount in $mounts; do umount -l "$mount" 2> /dev/null; done
rm -rf "$folder"
"#;

/// The process, which its proxy may kill at a moment that only the proxy sees.
#[derive(Clone, Default)]
pub struct Victim(pub Arc<Mutex<Option<Child>>>);

impl Victim {
    /// Whether there was one.
    pub fn kill(&self) -> bool {
        self.0.lock().as_mut().is_some_and(|child| child.kill().is_ok())
    }

    pub fn signal(&self, what: Signal) -> bool {
        let child = self.0.lock();
        child.as_ref().is_some_and(|child| {
            signal(child.id(), what);
            true
        })
    }
}

/// Who runs servers; only root has to be somebody else.
pub type User = Option<(u32, u32)>;

/// Cleans up behind a run.
pub struct Sweeper {
    input: Mutex<Option<ChildStdin>>,
    child: Mutex<Child>,
}

impl Sweeper {
    /// # Errors
    /// When there is no shell.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", SWEEPER, "sweeper"]).arg(folder).current_dir("/").process_group(0);
        let mut child = shell.stdin(Stdio::piped()).spawn().context("can't start a shell that cleans up")?;
        Ok(Self { input: Mutex::new(child.stdin.take()), child: Mutex::new(child) })
    }

    fn tell(&self, line: &str) {
        if let Some(input) = &mut *self.input.lock() {
            let _ = writeln!(input, "{line}");
        }
    }

    pub fn started(&self, pid: u32) {
        self.tell(&format!("pid {pid}"));
    }

    /// It was waited for: its number may be somebody else's.
    pub fn ended(&self, pid: u32) {
        self.tell(&format!("gone {pid}"));
    }

    pub fn mounted(&self, path: &Path) {
        self.tell(&format!("mount {}", path.display()));
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        *self.input.lock() = None;
        let _ = self.child.lock().wait();
    }
}

#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// PostgreSQL refuses to run as root.
///
/// # Errors
/// When there is nobody else.
pub fn other_user_when_root() -> anyhow::Result<User> {
    if !is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").context("can't read /etc/passwd")?;
    let ids = ["postgres", "nobody"].iter().find_map(|wanted| {
        let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = fields.find(|fields| fields.first() == Some(wanted))?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    });
    Ok(Some(ids.context("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")?))
}

/// A command of that user. Its own group keeps Ctrl-C away from it.
#[must_use]
pub fn command(user: User, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C").process_group(0).stdin(Stdio::null());
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// # Errors
/// When it can't be started or fails.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("can't start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Copies a folder with owners and times.
///
/// # Errors
/// When it can't be copied.
pub fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    run(Command::new("cp").arg("-a").arg(from).arg(to))
}

/// # Errors
/// When it can't be made.
pub fn folder_of(user: User, path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("can't make {}", path.display()))?;
    if let Some((uid, gid)) = user {
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

pub fn signal(pid: u32, signal: Signal) {
    // It may have ended meanwhile, so the outcome says nothing.
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The children of a process.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// A process and all its children, frozen: it first, since then it starts no more of them.
pub fn freeze_family(parent: u32) -> Vec<u32> {
    signal(parent, Signal::STOP);
    let _ = wait_until("a process stands still", Duration::from_secs(5), || {
        stat_of(parent).is_none_or(|(state, _)| matches!(&*state, "T" | "Z"))
    });
    let children = children(parent);
    children.iter().for_each(|child| signal(*child, Signal::STOP));
    [vec![parent], children].concat()
}

/// Zombies have no parent here.
fn parent_of(pid: u32) -> Option<u32> {
    stat_of(pid).filter(|(state, _)| state != "Z").map(|(_, parent)| parent)
}

/// The state and the parent, from `/proc/PID/stat`; the name, in brackets, may hold anything.
fn stat_of(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

#[must_use]
pub fn lives(pid: u32) -> bool {
    parent_of(pid).is_some()
}

/// # Errors
/// When it does not become true in time.
pub fn wait_until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    while !holds() {
        ensure!(Instant::now() < until, "waited {} s in vain until {what}", patience.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    /// Those that run, of a group.
    fn members(group: u32) -> Vec<u32> {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
        let is_member = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            fields.get(2).and_then(|found| found.parse().ok()) == Some(group) && fields[0] != "Z"
        };
        pids.filter(is_member).collect()
    }

    #[test]
    fn of_a_family_that_grows_all_the_time_nobody_is_left() {
        let mut shell = command(None, Path::new("sh"));
        shell.args(["-c", "for number in $(seq 3000); do sleep 60 & done; wait"]);
        let mut parent = shell.spawn().unwrap();
        wait_until("it has children", Duration::from_secs(30), || children(parent.id()).len() > 3).unwrap();
        freeze_family(parent.id()).iter().for_each(|pid| signal(*pid, Signal::KILL));
        parent.wait().unwrap();
        let left = wait_until("nobody is left", Duration::from_secs(5), || members(parent.id()).is_empty());
        members(parent.id()).iter().for_each(|pid| signal(*pid, Signal::KILL));
        left.unwrap();
    }
}
