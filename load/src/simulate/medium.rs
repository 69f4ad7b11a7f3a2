//! Files and names of a simulated disk, as a process sees them and as they are on the medium.

use std::collections::BTreeMap;

/// Devices write a sector whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Inode {
    /// The bytes that a process reads, without the zeros at the end: `length` counts those, too.
    pub(super) data: Vec<u8>,
    pub(super) length: u64,
    /// The same on the medium.
    durable: Vec<u8>,
    durable_length: u64,
    /// The changes since the last sync.
    unsynced: Vec<Unsynced>,
    /// A sync has failed: what was written until then does not become durable any more.
    pub(super) is_lost: bool,
}

#[derive(Clone)]
enum Unsynced {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Default)]
pub(super) struct Folder {
    pub(super) names: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// Each is what names stand for after one operation.
    unsynced: Vec<Vec<(String, Option<usize>)>>,
    pub(super) is_lost: bool,
}

impl Folder {
    fn apply(&mut self, change: &[(String, Option<usize>)]) {
        for (name, inode) in change {
            match inode {
                Some(inode) => drop(self.names.insert(name.clone(), *inode)),
                None => drop(self.names.remove(name)),
            }
        }
    }

    pub(super) fn change(&mut self, change: Vec<(String, Option<usize>)>) {
        self.apply(&change);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        if !self.is_lost {
            self.durable.clone_from(&self.names);
            self.unsynced.clear();
        }
    }

    /// Each unsynced change of names may be kept or not.
    pub(super) fn keep_some(&mut self, keeps: &mut impl FnMut() -> bool) {
        self.names.clone_from(&self.durable);
        for change in std::mem::take(&mut self.unsynced) {
            if keeps() {
                self.apply(&change);
            }
        }
    }

    /// What is there is durable.
    pub(super) fn settle(&mut self) {
        self.durable.clone_from(&self.names);
        self.unsynced.clear();
        self.is_lost = false;
    }
}

impl Inode {
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        put(&mut self.data, &mut self.length, offset, bytes);
        self.unsynced.push(Unsynced::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn set_length(&mut self, length: u64) {
        cut(&mut self.data, &mut self.length, length);
        self.unsynced.push(Unsynced::Length(length));
    }

    pub(super) fn sync(&mut self) {
        if self.is_lost {
            return;
        }
        for unsynced in std::mem::take(&mut self.unsynced) {
            match unsynced {
                Unsynced::Write { offset, bytes } => put(&mut self.durable, &mut self.durable_length, offset, &bytes),
                Unsynced::Length(length) => cut(&mut self.durable, &mut self.durable_length, length),
            }
        }
    }

    /// What is there is durable.
    pub(super) fn settle(&mut self) {
        self.durable.clone_from(&self.data);
        self.durable_length = self.length;
        self.unsynced.clear();
        self.is_lost = false;
    }

    /// Each unsynced sector may be kept or not.
    pub(super) fn keep_some(&mut self, keeps: &mut impl FnMut() -> bool) {
        let (mut data, mut length) = (std::mem::take(&mut self.durable), self.durable_length);
        for unsynced in std::mem::take(&mut self.unsynced) {
            match unsynced {
                Unsynced::Write { offset, bytes } => {
                    let (mut at, mut rest) = (offset, &bytes[..]);
                    while !rest.is_empty() {
                        let within = usize::try_from(at).unwrap_or(0) % SECTOR_BYTES;
                        let (sector, more) = rest.split_at(rest.len().min(SECTOR_BYTES - within));
                        if keeps() {
                            put(&mut data, &mut length, at, sector);
                        }
                        at += sector.len() as u64;
                        rest = more;
                    }
                }
                Unsynced::Length(to) => {
                    if keeps() {
                        cut(&mut data, &mut length, to);
                    }
                }
            }
        }
        (self.data, self.length) = (data, length);
    }
}

fn put(data: &mut Vec<u8>, length: &mut u64, offset: u64, bytes: &[u8]) {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let kept = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if kept > 0 && data.len() < from + kept {
        data.resize(from + kept, 0);
    }
    if from < data.len() {
        let end = data.len().min(from + bytes.len());
        data[from..end].copy_from_slice(&bytes[..end - from]);
    }
    *length = (*length).max(offset + bytes.len() as u64);
}

fn cut(data: &mut Vec<u8>, length: &mut u64, to: u64) {
    data.truncate(usize::try_from(to).unwrap_or(usize::MAX));
    *length = to;
}
