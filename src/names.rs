//! The names of all events this node knows, each stored once and for good.
//!
//! A counter then needs only a number in place of a name. A name's entry also keeps an upper bound
//! of its all-time total, so that a sum that would overflow is refused at the door and never meets
//! a store.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use parking_lot::RwLock;

use crate::domain::{EventName, TOTAL_MAX};

const SHARD_BITS: u32 = 5;
const SHARDS: usize = 1 << SHARD_BITS;

/// Which limits the names obey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Distinct event names this node keeps (about 45 bytes of memory each); a POST of a further
    /// one is refused. At least 1.
    pub events_max: u64,
}

/// A known name, as a number that is valid in this process only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NameId(pub(crate) u32);

/// Why a count is not admitted. Nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the event's all-time total would pass {TOTAL_MAX}")]
    TotalOverflow,
    #[error("the limit on distinct event names (limits.events_max) is reached")]
    TooManyEvents,
    #[error("an administrator has switched the event off")]
    Inactive,
    #[error("an administrator has deleted the event")]
    Deleted,
}

/// What administrators said about a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing<'a> {
    /// What names are that nothing was said about.
    Counted,
    Inactive,
    Deleted,
    /// Its counts belong to that event, whose total grows with them.
    AliasOf(&'a EventName),
}

/// Two in a cache line, which is what a million of them need.
struct Entry {
    name: EventName,
    /// At least the all-time total: what the store was last seen to hold and all admitted since. The
    /// top bit, which no total reaches, tells that the name is [`MARKED`].
    spent: AtomicU64,
}

/// Administrators said something about the name: [`Names::marks`] holds what.
const MARKED: u64 = 1 << 63;

/// What has to be looked at before a marked name is counted.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Its counts of before this version of the catalog were removed for good, and a batch that does not
    /// know of that could lose what is counted now.
    purged: u64,
    said: Option<Said>,
}

#[derive(Clone, Copy)]
enum Said {
    Refused(Refused),
    AliasOf(NameId),
}

#[derive(Default)]
struct Shard {
    indices: HashTable<u32>,
    /// All full but the last. A single list would copy itself to grow, and leave up to half of its
    /// memory unused.
    chunks: Vec<Vec<Entry>>,
}

/// 16 KiB; a node that knows few names has one in each shard that has any.
const CHUNK_ENTRIES: usize = 512;

pub struct Names {
    shards: Box<[RwLock<Shard>]>,
    // Keyed at random for each process, so that nobody can craft names that collide.
    hasher: RandomState,
    len: AtomicUsize,
    events_max: usize,
    marks: RwLock<HashMap<NameId, Mark>>,
}

impl Names {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::default(),
            len: AtomicUsize::new(0),
            events_max: usize::try_from(limits.events_max).unwrap_or(usize::MAX),
            marks: RwLock::default(),
        }
    }

    /// How many names are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Admits `count` more of `event`: its number, and whether the name is new here.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn admit(&self, event: &EventName, count: u64) -> Result<(NameId, bool), Refused> {
        self.admit_into(event, count, u64::MAX)
    }

    /// [`Names::admit`] into a batch that was opened with version `catalog` of the catalog: a name that a
    /// later version purged is still refused as deleted.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn admit_into(&self, event: &EventName, count: u64, catalog: u64) -> Result<(NameId, bool), Refused> {
        let (hash, number) = self.locate(event);
        {
            let shard = self.shards[number].read();
            if let Some(index) = shard.find(hash, event) {
                let marked = shard.entry(index).spend(count)?;
                let id = id(number, index);
                if marked {
                    drop(shard);
                    self.admit_marked(id, count, catalog)?;
                }
                return Ok((id, false));
            }
        }
        if self.len() >= self.events_max {
            return Err(Refused::TooManyEvents);
        }
        let mut shard = self.shards[number].write();
        let (index, new) = self.insert(&mut shard, hash, event);
        shard.entry(index).spend(count)?;
        Ok((id(number, index), new))
    }

    /// The rest of [`Names::admit`] for a name that is an alias or refused. No two locks are held at
    /// once: a writer that waits between two readers would stop both.
    fn admit_marked(&self, id: NameId, count: u64, catalog: u64) -> Result<(), Refused> {
        let mark = self.marks.read().get(&id).copied().unwrap_or_default();
        let admitted = match mark.said {
            _ if mark.purged > catalog => Err(Refused::Deleted),
            // Taken back a moment ago, perhaps.
            None => Ok(()),
            Some(Said::Refused(why)) => Err(why),
            Some(Said::AliasOf(target)) => self.with_entry(target, |target| target.spend(count)).map(|_| ()),
        };
        if admitted.is_err() {
            self.with_entry(id, |entry| entry.spent.fetch_sub(count, Ordering::Relaxed));
        }
        admitted
    }

    /// Replaces all that was said about names before. Names that are not known yet become so. `purges`:
    /// which version of the catalog purged a name, as far as the open batch may not know of it.
    pub fn set_standings<'a>(
        &self,
        standings: impl IntoIterator<Item = (&'a EventName, Standing<'a>)>,
        purges: impl IntoIterator<Item = (&'a EventName, u64)>,
    ) {
        let mut marks: HashMap<NameId, Mark> = standings
            .into_iter()
            .filter_map(|(event, standing)| {
                let said = match standing {
                    Standing::Counted => return None,
                    Standing::Inactive => Said::Refused(Refused::Inactive),
                    Standing::Deleted => Said::Refused(Refused::Deleted),
                    Standing::AliasOf(target) => Said::AliasOf(self.learn(target, 0)),
                };
                Some((self.learn(event, 0), Mark { purged: 0, said: Some(said) }))
            })
            .collect();
        for (event, version) in purges {
            marks.entry(self.learn(event, 0)).or_default().purged = version;
        }
        let mut current = self.marks.write();
        let before = std::mem::replace(&mut *current, marks);
        for id in before.keys().filter(|id| !current.contains_key(id)) {
            self.with_entry(*id, |entry| entry.spent.fetch_and(!MARKED, Ordering::Relaxed));
        }
        for id in current.keys() {
            self.with_entry(*id, |entry| entry.spent.fetch_or(MARKED, Ordering::Relaxed));
        }
    }

    /// Takes note of an event that the store or the journal holds with this total so far. Not
    /// subject to the limit: what is counted is known.
    pub fn learn(&self, event: &EventName, total: u64) -> NameId {
        let (hash, number) = self.locate(event);
        let mut shard = self.shards[number].write();
        let (index, _) = self.insert(&mut shard, hash, event);
        let spent = &shard.entry(index).spent;
        // Nobody else has the shard, so this needs no compare-and-swap.
        let before = spent.load(Ordering::Relaxed);
        spent.store(before.max(total.min(TOTAL_MAX) | before & MARKED), Ordering::Relaxed);
        id(number, index)
    }

    #[must_use]
    pub fn find(&self, event: &EventName) -> Option<NameId> {
        let (hash, number) = self.locate(event);
        Some(id(number, self.shards[number].read().find(hash, event)?))
    }

    /// The name behind a number that this instance gave out.
    #[must_use]
    pub fn name(&self, id: NameId) -> EventName {
        self.with_entry(id, |entry| entry.name.clone())
    }

    fn with_entry<T>(&self, id: NameId, work: impl FnOnce(&Entry) -> T) -> T {
        let shard = self.shards[id.0 as usize % SHARDS].read();
        work(shard.entry(id.0 >> SHARD_BITS))
    }

    fn locate(&self, event: &EventName) -> (u64, usize) {
        let hash = self.hasher.hash_one(event.as_str());
        // The table takes its bucket from the low bits and its tag from the top seven.
        (hash, (hash >> 40) as usize % SHARDS)
    }

    fn insert(&self, shard: &mut Shard, hash: u64, event: &EventName) -> (u32, bool) {
        if let Some(index) = shard.find(hash, event) {
            return (index, false);
        }
        let Shard { indices, chunks } = shard;
        if chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_ENTRIES) {
            chunks.push(Vec::with_capacity(CHUNK_ENTRIES));
        }
        let full = (chunks.len() - 1) * CHUNK_ENTRIES;
        let last = &mut chunks[full / CHUNK_ENTRIES];
        // More than 2^27 names in a shard would need hundreds of gigabytes first.
        let index = u32::try_from(full + last.len()).unwrap_or(u32::MAX);
        last.push(Entry { name: event.clone(), spent: AtomicU64::new(0) });
        indices.insert_unique(hash, index, |&other| self.hasher.hash_one(entry(chunks, other).name.as_str()));
        self.len.fetch_add(1, Ordering::Relaxed);
        (index, true)
    }
}

impl Shard {
    fn find(&self, hash: u64, event: &EventName) -> Option<u32> {
        self.indices.find(hash, |&index| self.entry(index).name == *event).copied()
    }

    fn entry(&self, index: u32) -> &Entry {
        entry(&self.chunks, index)
    }
}

fn entry(chunks: &[Vec<Entry>], index: u32) -> &Entry {
    &chunks[index as usize / CHUNK_ENTRIES][index as usize % CHUNK_ENTRIES]
}

impl Entry {
    /// Whether the name is marked.
    fn spend(&self, count: u64) -> Result<bool, Refused> {
        let before = self.spent.fetch_add(count, Ordering::Relaxed);
        // Counts are far smaller than the distance of TOTAL_MAX to the mark, so the sum can't reach
        // it however many threads are between the addition and its undoing.
        if (before & !MARKED).saturating_add(count) > TOTAL_MAX {
            self.spent.fetch_sub(count, Ordering::Relaxed);
            return Err(Refused::TotalOverflow);
        }
        Ok(before & MARKED != 0)
    }
}

fn id(shard: usize, index: u32) -> NameId {
    NameId(index << SHARD_BITS | shard as u32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;

    fn name(text: &str) -> EventName {
        EventName::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_new_once_and_keeps_its_number() {
        let names = Names::new(Limits { events_max: 10 });
        let (id, new) = names.admit(&name("login"), 1).unwrap();
        assert!(new);
        assert_eq!(names.admit(&name("login"), 1).unwrap(), (id, false));
        assert_eq!(names.find(&name("login")), Some(id));
        assert_eq!(names.name(id), name("login"));
        assert_eq!(names.find(&name("Login")), None);
    }

    #[test]
    fn names_beyond_the_limit_are_refused_and_known_ones_go_on() {
        let names = Names::new(Limits { events_max: 2 });
        names.admit(&name("a"), 1).unwrap();
        names.admit(&name("b"), 1).unwrap();
        assert_eq!(names.admit(&name("c"), 1), Err(Refused::TooManyEvents));
        assert!(names.admit(&name("a"), 1).is_ok());
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn a_total_that_would_overflow_is_refused_and_leaves_room_for_less() {
        let names = Names::new(Limits { events_max: 2 });
        names.learn(&name("a"), TOTAL_MAX - 10);
        assert_eq!(names.admit(&name("a"), 11), Err(Refused::TotalOverflow));
        assert!(names.admit(&name("a"), 10).is_ok());
        assert_eq!(names.admit(&name("a"), 1), Err(Refused::TotalOverflow));
    }

    #[test]
    fn names_are_refused_as_long_as_administrators_say_so() {
        let names = Names::new(Limits { events_max: 10 });
        let (off, gone) = (name("off"), name("gone"));
        names.set_standings([(&off, Standing::Inactive), (&gone, Standing::Deleted)], []);
        assert_eq!(names.admit(&off, 1), Err(Refused::Inactive));
        assert_eq!(names.admit(&gone, 1), Err(Refused::Deleted));
        names.set_standings([(&gone, Standing::Inactive)], []);
        assert!(!names.admit(&off, 1).unwrap().1);
        assert_eq!(names.admit(&gone, 1), Err(Refused::Inactive));
        names.set_standings([], []);
        assert!(names.admit(&gone, 1).is_ok());
    }

    #[test]
    fn a_purged_name_is_admitted_by_batches_that_know_of_the_purge() {
        let names = Names::new(Limits { events_max: 10 });
        let (gone, target) = (name("gone"), name("target"));
        names.set_standings([(&gone, Standing::AliasOf(&target))], [(&gone, 7)]);
        assert_eq!(names.admit_into(&gone, 1, 6), Err(Refused::Deleted));
        assert!(names.admit_into(&gone, 1, 7).is_ok());
        names.set_standings([(&gone, Standing::Inactive)], [(&gone, 7)]);
        assert_eq!(names.admit_into(&gone, 1, 6), Err(Refused::Deleted));
        assert_eq!(names.admit_into(&gone, 1, 7), Err(Refused::Inactive));
        assert!(names.admit_into(&target, 1, 0).is_ok());
    }

    #[test]
    fn what_an_alias_counts_is_charged_to_its_event() {
        let names = Names::new(Limits { events_max: 10 });
        let (old, new) = (name("old"), name("new"));
        names.learn(&new, TOTAL_MAX - 10);
        names.set_standings([(&old, Standing::AliasOf(&new))], []);
        assert!(names.admit(&old, 6).is_ok());
        assert_eq!(names.admit(&new, 5), Err(Refused::TotalOverflow));
        assert_eq!(names.admit(&old, 5), Err(Refused::TotalOverflow));
        assert!(names.admit(&old, 4).is_ok());
        assert_eq!(names.admit(&new, 1), Err(Refused::TotalOverflow));
    }

    #[test]
    fn many_names_are_all_found_again() {
        let names = Names::new(Limits { events_max: 100_000 });
        let ids: Vec<_> = (0..50_000).map(|n| names.admit(&name(&format!("event-{n}")), 1).unwrap().0).collect();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(names.name(*id).as_str(), format!("event-{n}"));
        }
    }
}
