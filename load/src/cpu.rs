//! Processor time of a server on this machine, found by the port it listens on.

use std::collections::HashSet;
use std::fs;

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

    /// User and system time of all of them so far, in microseconds; `None` if one can't be read.
    #[must_use]
    pub fn cpu_us(&self) -> Option<u64> {
        let ticks: Option<u64> = self.0.iter().map(|pid| ticks(*pid)).sum();
        let ticks = ticks.filter(|_| !self.0.is_empty())?;
        Some(ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1))
    }
}

/// This process's own user and system time so far, in microseconds.
#[must_use]
pub fn own_cpu_us() -> u64 {
    Processes::of(std::process::id()).cpu_us().unwrap_or_default()
}

/// The inode of the socket in a line of `/proc/net/tcp`, if it listens on `port`.
fn listening_inode(line: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == LISTEN && u16::from_str_radix(local_port, 16) == Ok(port);
    if listens { fields.get(9).copied() } else { None }
}

/// Fields 14 and 15 of `/proc/PID/stat`. The second field, the program's name in parentheses, may
/// hold spaces and parentheses itself, so counting begins behind the last one.
fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}
