//! A disk in memory: what is not synced may be lost in part when the power goes, and any operation may fail.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event_tracker::journal::DataDir;
use event_tracker::journal::files::{FileHandle, Files};
use parking_lot::{Mutex, MutexGuard};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::medium::{Folder, Inode};

/// What a healthy disk has room for; the reserve alone takes 256 KiB.
const ROOM_BYTES: u64 = 64 << 20;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// What may fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Create,
    Open,
    Rename,
    Remove,
    List,
    SyncFolder,
    Write,
    Read,
    Sync,
    SetLength,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::Create,
        Self::Open,
        Self::Rename,
        Self::Remove,
        Self::List,
        Self::SyncFolder,
        Self::Write,
        Self::Read,
        Self::Sync,
        Self::SetLength,
    ];

    fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::List | Self::Read | Self::Sync | Self::SyncFolder)
    }
}

/// How it fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The nth operation of the kind from now on fails; `done`: it has its effect all the same, or half of it.
    Nth { kind: Kind, nth: u32, done: bool },
    /// The process dies with the nth operation of any kind from now on, before it or `done` with it.
    Dies { nth: u32, done: bool },
    /// No room for anything.
    Full,
    /// Nothing can be changed.
    ReadOnly,
    /// Nothing works.
    Gone,
}

/// How much of what was not synced a power cut leaves: each sector and each name by itself with this
/// probability.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Left(pub f64);

impl Left {
    /// Says of one after the other whether it is left.
    pub fn each(self, seed: u64) -> impl FnMut() -> bool {
        let mut random = SmallRng::seed_from_u64(seed);
        move || random.random_bool(self.0)
    }
}

struct Contents {
    folders: [Folder; 2],
    inodes: Vec<Inode>,
    fault: Option<Fault>,
    /// What of a process that has ended is still open is of no effect.
    process: u64,
    lives: Arc<AtomicBool>,
    random: SmallRng,
    operations: u64,
}

#[derive(Clone)]
pub struct Disk(Arc<Mutex<Contents>>);

impl Disk {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Contents {
            folders: Default::default(),
            inodes: Vec::new(),
            fault: None,
            process: 0,
            lives: Arc::default(),
            random: SmallRng::seed_from_u64(seed),
            operations: 0,
        })))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock()
    }

    /// The data folder for a process that starts now, and whether that lives. Whatever had it before is dead.
    #[must_use]
    pub fn data_dir(&self) -> (DataDir, Arc<AtomicBool>) {
        let (process, lives) = {
            let mut contents = self.contents();
            contents.end_process();
            // A folder is opened anew, and synced as a whole then: only files keep their failed syncs.
            contents.folders.iter_mut().for_each(|folder| folder.is_lost = false);
            contents.lives = Arc::new(AtomicBool::new(true));
            (contents.process, Arc::clone(&contents.lives))
        };
        let files = |folder| {
            let files: Arc<dyn Files> = Arc::new(OpenFolder { disk: self.clone(), folder, process });
            files
        };
        (DataDir::of(Path::new("simulated"), files(0), files(1)), lives)
    }

    /// What is there, as `cp -a` of the folder gives it.
    #[must_use]
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        let mut to = copy.contents();
        let from = self.contents();
        to.folders = from.folders.clone();
        to.inodes = from.inodes.clone();
        to.settle();
        drop(to);
        copy
    }

    /// As it is, with what is not synced.
    #[must_use]
    pub fn fork(&self) -> Self {
        let fork = Self::new(0);
        let mut to = fork.contents();
        let from = self.contents();
        to.folders = from.folders.clone();
        to.inodes = from.inodes.clone();
        to.random = from.random.clone();
        drop(to);
        fork
    }

    /// Whether a fault is still to come.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        self.contents().fault.is_some()
    }

    /// `kill -9` of whatever uses it.
    pub fn kill(&self) {
        self.contents().end_process();
    }

    /// The machine ends, and what was not synced with it, but for the sectors and names that it `keeps`. It is
    /// asked in the same order each time.
    pub fn cut_power(&self, mut keeps: impl FnMut() -> bool) {
        let mut contents = self.contents();
        contents.end_process();
        contents.inodes.iter_mut().for_each(|inode| inode.keep_some(&mut keeps));
        contents.folders.iter_mut().for_each(|folder| folder.keep_some(&mut keeps));
        contents.settle();
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        self.contents().fault = fault;
    }

    /// How many operations there ever were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.contents().operations
    }

    /// Names and lengths, to tell one history from another.
    #[must_use]
    pub fn summary(&self) -> String {
        let contents = self.contents();
        let files = contents.folders.iter().flat_map(|folder| &folder.names);
        files.map(|(name, inode)| format!("{name}:{} ", contents.inodes[*inode].length)).collect()
    }
}

impl Contents {
    fn end_process(&mut self) {
        self.process += 1;
        self.lives.store(false, Ordering::Relaxed);
    }

    /// What is there is durable.
    fn settle(&mut self) {
        self.inodes.iter_mut().for_each(Inode::settle);
        self.folders.iter_mut().for_each(Folder::settle);
    }

    fn used(&self) -> u64 {
        let used: BTreeSet<_> = self.folders.iter().flat_map(|folder| folder.names.values()).collect();
        used.into_iter().map(|inode| self.inodes[*inode].length).sum()
    }

    /// What becomes of an operation of this process: an error, and whether it has its effect all the same.
    fn fate(&mut self, kind: Kind, process: u64) -> Result<(), (io::Error, bool)> {
        let error = |number| io::Error::from_raw_os_error(number);
        if process != self.process {
            return Err((error(EIO), false));
        }
        self.operations += 1;
        match &mut self.fault {
            Some(Fault::Nth { kind: of, nth, done }) if *of == kind => {
                if *nth > 1 {
                    *nth -= 1;
                    return Ok(());
                }
                let done = *done;
                self.fault = None;
                Err((error(EIO), done))
            }
            Some(Fault::Dies { nth, done }) => {
                if *nth > 1 {
                    *nth -= 1;
                    return Ok(());
                }
                let done = *done;
                self.fault = None;
                self.end_process();
                Err((error(EIO), done))
            }
            Some(Fault::Full) if matches!(kind, Kind::Create | Kind::Write) => Err((error(ENOSPC), false)),
            Some(Fault::ReadOnly) if kind.changes() => Err((error(EROFS), false)),
            Some(Fault::Gone) => Err((error(EIO), false)),
            _ => Ok(()),
        }
    }
}

struct OpenFolder {
    disk: Disk,
    folder: usize,
    process: u64,
}

impl OpenFolder {
    fn meet<T>(&self, kind: Kind, work: impl FnOnce(&mut Contents) -> io::Result<T>) -> io::Result<T> {
        let mut contents = self.disk.contents();
        match contents.fate(kind, self.process) {
            Ok(()) => work(&mut contents),
            Err((error, true)) => work(&mut contents).and(Err(error)),
            Err((error, false)) => Err(error),
        }
    }

    fn handle(&self, inode: usize) -> Arc<dyn FileHandle> {
        Arc::new(OpenFile { disk: self.disk.clone(), folder: self.folder, inode, process: self.process })
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Files for OpenFolder {
    fn create(&self, name: &str) -> io::Result<Arc<dyn FileHandle>> {
        let inode = self.meet(Kind::Create, |contents| {
            if contents.folders[self.folder].names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            contents.inodes.push(Inode::default());
            let inode = contents.inodes.len() - 1;
            contents.folders[self.folder].change(vec![(name.to_owned(), Some(inode))]);
            Ok(inode)
        })?;
        Ok(self.handle(inode))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn FileHandle>> {
        let find = |contents: &mut Contents| contents.folders[self.folder].names.get(name).copied().ok_or_else(missing);
        Ok(self.handle(self.meet(Kind::Open, find)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.meet(Kind::Rename, |contents| {
            let folder = &mut contents.folders[self.folder];
            let inode = *folder.names.get(from).ok_or_else(missing)?;
            folder.change(vec![(from.to_owned(), None), (to.to_owned(), Some(inode))]);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.meet(Kind::Remove, |contents| {
            let folder = &mut contents.folders[self.folder];
            folder.names.get(name).ok_or_else(missing)?;
            folder.change(vec![(name.to_owned(), None)]);
            Ok(())
        })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.meet(Kind::List, |contents| Ok(contents.folders[self.folder].names.keys().cloned().collect()))
    }

    fn sync_folder(&self) -> io::Result<()> {
        let synced = self.meet(Kind::SyncFolder, |contents| {
            contents.folders[self.folder].sync();
            Ok(())
        });
        if synced.is_err() {
            self.disk.contents().folders[self.folder].is_lost = true;
        }
        synced
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let contents = self.disk.contents();
        let is_full = contents.fault == Some(Fault::Full);
        Ok(if is_full { 0 } else { ROOM_BYTES.saturating_sub(contents.used()) })
    }

    fn check_in_place(&self) -> io::Result<()> {
        Ok(())
    }

    fn random_bits(&self) -> io::Result<[u8; 16]> {
        Ok(self.disk.contents().random.random())
    }

    fn path_of(&self, name: &str) -> PathBuf {
        Path::new("simulated").join(name)
    }
}

struct OpenFile {
    disk: Disk,
    folder: usize,
    inode: usize,
    process: u64,
}

impl OpenFile {
    fn meet<T>(&self, kind: Kind, work: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        let mut contents = self.disk.contents();
        match contents.fate(kind, self.process) {
            Ok(()) => Ok(work(&mut contents.inodes[self.inode])),
            Err((error, done)) => {
                if done {
                    work(&mut contents.inodes[self.inode]);
                }
                Err(error)
            }
        }
    }
}

impl FileHandle for OpenFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut contents = self.disk.contents();
        match contents.fate(Kind::Write, self.process) {
            Ok(()) => {
                contents.inodes[self.inode].write(offset, bytes);
                Ok(())
            }
            Err((error, done)) => {
                if done || self.process == contents.process {
                    // A part of it may be in the file.
                    let part = if done { bytes.len() } else { contents.random.random_range(0..=bytes.len()) };
                    let is_refused = matches!(contents.fault, Some(Fault::ReadOnly | Fault::Gone));
                    if part > 0 && !is_refused {
                        contents.inodes[self.inode].write(offset, &bytes[..part]);
                    }
                }
                Err(error)
            }
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.meet(Kind::Read, |inode| {
            let count = inode.length.saturating_sub(offset).min(bytes.len() as u64);
            let count = usize::try_from(count).unwrap_or(0);
            for (index, byte) in bytes[..count].iter_mut().enumerate() {
                let at = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(index);
                *byte = inode.data.get(at).copied().unwrap_or(0);
            }
            count
        })
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.meet(Kind::Sync, Inode::sync);
        let mut contents = self.disk.contents();
        if synced.is_err() && self.process == contents.process {
            contents.inodes[self.inode].is_lost = true;
        }
        synced
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.meet(Kind::SetLength, |inode| inode.set_length(length))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.contents().inodes[self.inode].length)
    }

    fn is_linked(&self) -> io::Result<bool> {
        let contents = self.disk.contents();
        Ok(contents.folders[self.folder].names.values().any(|inode| *inode == self.inode))
    }
}
