//! What the sessions of the fleet do, wait for, and cost.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::cpu;

/// How often is looked who waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// The kernel's ticks in `/proc/PID/stat`: 100 a second on every Linux that people use.
const TICK_NS: u64 = 10_000_000;

/// Every session has one purpose for its life, which its statements tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Purpose {
    Commit,
    Fold,
    Look,
    Read,
    /// Not seen at work.
    Unknown,
    /// PostgreSQL's own processes: the writers of the log and of pages, vacuum.
    Background,
}

impl Purpose {
    pub(super) const ALL: [Self; 6] =
        [Self::Commit, Self::Fold, Self::Look, Self::Read, Self::Unknown, Self::Background];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Commit => "commits",
            Self::Fold => "folds",
            Self::Look => "looks",
            Self::Read => "reads",
            Self::Unknown => "other sessions",
            Self::Background => "background",
        }
    }

    /// A statement of a session: what only one purpose has, or what several have and says less.
    fn of(statement: &str) -> (u8, Self) {
        let has = |words: &[&str]| words.iter().any(|word| statement.contains(word));
        match statement {
            _ if has(&["insert into deltas"]) => (0, Self::Commit),
            _ if has(&["fold_lock", "insert into hourly_counts", "delete from deltas", "set live = false"]) => {
                (1, Self::Fold)
            }
            _ if has(&["entries_through"]) => (2, Self::Look),
            _ if has(&["hourly_counts", "unfolded_entries", "event_totals", "hour_totals"]) => (3, Self::Read),
            _ if has(&["retired_writers"]) => (4, Self::Look),
            _ => (5, Self::Unknown),
        }
    }
}

/// A session that waits for a lock of another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct LockWait {
    pub(super) who: Purpose,
    pub(super) holder: Purpose,
    /// Which kind of lock, in PostgreSQL's words.
    pub(super) lock: String,
}

/// What was seen.
pub(super) struct Activity {
    /// Of all processes of the server; `None` if they are on another machine.
    pub(super) cpu_ns: Option<BTreeMap<Purpose, u64>>,
    pub(super) looks: u64,
    /// In how many looks.
    pub(super) lock_waits: BTreeMap<LockWait, u64>,
}

/// Looks on until it is ended.
pub(super) struct Watching {
    stop: CancellationToken,
    looking: JoinHandle<anyhow::Result<Looks>>,
    before: Option<Processes>,
    /// Sessions that only look on.
    own: Vec<u32>,
}

#[derive(Default)]
struct Looks {
    number: u64,
    purposes: HashMap<u32, (u8, Purpose)>,
    waits: BTreeMap<(u32, u32, String), u64>,
}

/// The server's processes and what each has used so far.
struct Processes {
    postmaster: u32,
    cpu_ns: HashMap<u32, u64>,
    /// Of children that have ended.
    ended_ns: u64,
}

impl Watching {
    /// `client` is the session that looks, `own` are others that cost the fleet nothing.
    pub(super) async fn begin(client: Client, own: &[i32], is_here: bool) -> anyhow::Result<Self> {
        let row = client.query_one("select pg_backend_pid()", &[]).await?;
        let own = own.iter().copied().chain([row.try_get(0)?]);
        let own: Vec<u32> = own.filter_map(|pid| u32::try_from(pid).ok()).collect();
        let postmaster = own.last().and_then(|pid| parent_of_postgres(*pid)).filter(|_| is_here);
        let stop = CancellationToken::new();
        let looking = tokio::spawn(look(client, stop.clone()));
        Ok(Self { stop, looking, before: postmaster.map(Processes::of), own })
    }

    pub(super) async fn end(self) -> anyhow::Result<Activity> {
        let after = self.before.as_ref().map(|before| Processes::of(before.postmaster));
        self.stop.cancel();
        let Looks { number, purposes, waits } = self.looking.await??;
        let purpose = |pid: &u32| purposes.get(pid).map_or(Purpose::Unknown, |(_, purpose)| *purpose);
        let mut lock_waits = BTreeMap::new();
        for ((who, holder, lock), times) in waits {
            let wait = LockWait { who: purpose(&who), holder: purpose(&holder), lock };
            *lock_waits.entry(wait).or_default() += times;
        }
        let cpu_ns = self.before.zip(after).map(|(before, after)| {
            let mut cpu_ns = BTreeMap::new();
            for (pid, now_ns) in after.cpu_ns.iter().filter(|(pid, _)| !self.own.contains(pid)) {
                let purpose = if is_session(*pid) { purpose(pid) } else { Purpose::Background };
                *cpu_ns.entry(purpose).or_default() += now_ns - before.cpu_ns.get(pid).unwrap_or(&0).min(now_ns);
            }
            // The time that they had used before does not count.
            let gone: u64 =
                before.cpu_ns.iter().filter(|(pid, _)| !after.cpu_ns.contains_key(pid)).map(|(_, ns)| ns).sum();
            let ended_ns = (after.ended_ns - before.ended_ns).saturating_sub(gone);
            *cpu_ns.entry(Purpose::Background).or_default() += ended_ns;
            cpu_ns
        });
        Ok(Activity { cpu_ns, looks: number, lock_waits })
    }
}

/// Statements of sessions at work, and who waits for whom.
const LOOK: &str = "
    select
        waiting.pid,
        waiting.query,
        case when waiting.wait_event_type = 'Lock' then waiting.wait_event end,
        case when waiting.wait_event_type = 'Lock' then pg_blocking_pids(waiting.pid) else '{}' end
    from pg_stat_activity as waiting
    where waiting.datname = current_database() and waiting.state <> 'idle' and waiting.pid <> pg_backend_pid()";

async fn look(client: Client, stop: CancellationToken) -> anyhow::Result<Looks> {
    let mut looks = Looks::default();
    let look = client.prepare(LOOK).await?;
    while !stop.is_cancelled() {
        looks.number += 1;
        for row in client.query(&look, &[]).await.context("PostgreSQL's sessions can't be read")? {
            let pid = u32::try_from(row.try_get::<_, i32>(0)?)?;
            let seen = Purpose::of(row.try_get(1)?);
            let known = looks.purposes.entry(pid).or_insert(seen);
            if seen.0 < known.0 {
                *known = seen;
            }
            if let Some(lock) = row.try_get::<_, Option<String>>(2)? {
                for holder in row.try_get::<_, Vec<i32>>(3)? {
                    let holder = u32::try_from(holder).unwrap_or_default();
                    *looks.waits.entry((pid, holder, lock.clone())).or_default() += 1;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
    Ok(looks)
}

impl Processes {
    fn of(postmaster: u32) -> Self {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
        let children = pids.filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == postmaster));
        let family = children.chain([postmaster]);
        let cpu_ns = family.filter_map(|pid| Some((pid, cpu::cpu_ns(pid)?))).collect();
        Self { postmaster, cpu_ns, ended_ns: stat(postmaster).map_or(0, |stat| stat.ended_children_ns) }
    }
}

/// The postmaster of a session, if that process is PostgreSQL's: the number may be of another machine.
fn parent_of_postgres(pid: u32) -> Option<u32> {
    let stat = stat(pid).filter(|stat| stat.name.starts_with("postgres"))?;
    Some(stat.parent)
}

/// PostgreSQL's own processes say what they are, sessions whom they serve: `postgres: USER DATABASE …`.
fn is_session(pid: u32) -> bool {
    let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&title).contains(" event_load_fleet_")
}

struct Stat {
    name: String,
    parent: u32,
    ended_children_ns: u64,
}

/// Some of `/proc/PID/stat`; the name, in brackets, may hold anything.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        name: head.split_once('(')?.1.to_owned(),
        parent: u32::try_from(number(1)?).ok()?,
        ended_children_ns: (number(13)? + number(14)?) * TICK_NS,
    })
}
