//! Processor time of a server on this machine, found by the port it listens on.

use std::collections::HashSet;
use std::fs;

use nix::sys::time::TimeValLike as _;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// The processes whose processor time is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processes(Vec<u32>);

impl Processes {
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self(vec![pid])
    }

    /// Nobody's: the server is on another machine.
    #[must_use]
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// All processes that hold a listening TCP socket on `port`: a server with worker processes has
    /// several. Empty if there is none or if they belong to somebody else.
    #[must_use]
    pub fn listening_on(port: u16) -> Self {
        let sockets: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|table| {
                let inodes = table.lines().filter_map(|line| listening_inode(line, port));
                inodes.map(|inode| format!("socket:[{inode}]")).collect::<Vec<_>>()
            })
            .collect();
        let holds_one = |pid: u32| {
            fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|descriptors| {
                descriptors.flatten().any(|descriptor| {
                    fs::read_link(descriptor.path())
                        .is_ok_and(|link| link.to_str().is_some_and(|link| sockets.contains(link)))
                })
            })
        };
        if sockets.is_empty() {
            return Self(Vec::new());
        }
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        Self(pids.filter(|pid| holds_one(*pid)).collect())
    }

    /// The processes of several servers.
    #[must_use]
    pub fn joined(servers: impl IntoIterator<Item = Self>) -> Self {
        Self(servers.into_iter().flat_map(|server| server.0).collect())
    }

    /// User and system time of all of them so far, in nanoseconds; `None` if one has ended.
    #[must_use]
    pub fn cpu_ns(&self) -> Option<u64> {
        let sum: Option<u64> = self.0.iter().map(|pid| cpu_ns(*pid)).sum();
        sum.filter(|_| !self.0.is_empty())
    }
}

/// This process's own user and system time so far, in nanoseconds.
#[must_use]
pub fn own_cpu_ns() -> u64 {
    cpu_ns(std::process::id()).unwrap_or_default()
}

/// The inode of the socket in a line of `/proc/net/tcp`, if it listens on `port`.
fn listening_inode(line: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == LISTEN && u16::from_str_radix(local_port, 16) == Ok(port);
    if listens { fields.get(9).copied() } else { None }
}

/// The process's own clock. `/proc/PID/stat` counts in ticks of 10 ms, and `/proc/PID/task/*/schedstat`
/// forgets threads that have ended.
#[must_use]
pub fn cpu_ns(pid: u32) -> Option<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    let time = clock.now().ok()?;
    u64::try_from(time.num_nanoseconds()).ok()
}
