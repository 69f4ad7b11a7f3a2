//! A disk that fails when a test says so. The files of a node's folders stand on the real disk; a
//! [`Plan`] counts the operations of each kind on all of them and lets those fail that it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use event_tracker::journal::DataDir;
use event_tracker::journal::files::{FileHandle, Files, OsFiles};
use parking_lot::Mutex;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Create,
    Open,
    WriteAt,
    ReadAt,
    Sync,
    SetLength,
    Length,
    IsLinked,
    Rename,
    Remove,
    List,
    SyncFolder,
    FreeBytes,
    CheckInPlace,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Create,
        Self::Open,
        Self::WriteAt,
        Self::ReadAt,
        Self::Sync,
        Self::SetLength,
        Self::Length,
        Self::IsLinked,
        Self::Rename,
        Self::Remove,
        Self::List,
        Self::SyncFolder,
        Self::FreeBytes,
        Self::CheckInPlace,
    ];

    /// Whether it changes what is on the disk.
    pub fn changes(self) -> bool {
        matches!(self, Self::Create | Self::WriteAt | Self::SetLength | Self::Rename | Self::Remove)
    }
}

pub const EIO: i32 = 5;
pub const EMFILE: i32 = 24;
pub const ENOSPC: i32 = 28;
pub const EROFS: i32 = 30;

/// In which way it fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Nothing happens but this error.
    Fails(i32),
    /// A write leaves half of its bytes and fails.
    Half(i32),
    /// It takes effect and fails all the same.
    Done(i32),
    /// From here on everything fails, for so many operations (`None`: until it is healed).
    Gone(Option<u64>),
    /// From here on nothing can be created and writes leave half of their bytes.
    Full(Option<u64>),
    /// From here on nothing can be changed.
    ReadOnly(Option<u64>),
    /// From here on nothing can be opened or created.
    NoDescriptors(Option<u64>),
    /// The process is killed here.
    Dies,
    /// The process is killed within a write.
    DiesHalfway,
}

/// The `nth` operation of a kind (`None`: of all), counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    pub kind: Option<Kind>,
    pub nth: u64,
    pub way: Way,
}

#[derive(Default)]
struct Operations {
    counted: [u64; Kind::ALL.len()],
    all: u64,
    /// The number, among all, of the operation that was the first to fail.
    since: Option<u64>,
    healed: bool,
    dead: bool,
    /// Files by the ends of their names, and the bytes in them that can't be read.
    unreadable: Vec<(String, u64)>,
    /// What a power cut leaves: the contents of files by their inodes, and the names in each folder.
    synced: BTreeMap<u64, Vec<u8>>,
    names: BTreeMap<PathBuf, BTreeMap<String, u64>>,
    /// Files and folders of which a sync has failed. Linux reports that once and then calls the pages
    /// clean: later syncs succeed and bring nothing, until an earlier process's files are read anew.
    lost_files: BTreeSet<u64>,
    lost_folders: BTreeSet<PathBuf>,
    longest_read: usize,
}

/// What becomes of one operation.
enum Fate {
    Happens,
    Fails(i32),
    Half(i32),
    Done(i32),
}

/// What fails when, for all folders that share it.
pub struct Plan {
    fault: Option<Fault>,
    operations: Mutex<Operations>,
}

impl Plan {
    pub fn healthy() -> Arc<Self> {
        Arc::new(Self { fault: None, operations: Mutex::default() })
    }

    pub fn with(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault: Some(fault), operations: Mutex::default() })
    }

    /// A data folder on this disk.
    pub fn folder(self: &Arc<Self>, path: &Path) -> DataDir {
        let journal = path.join("journal");
        std::fs::create_dir_all(&journal).unwrap();
        DataDir::of(path, self.files(path), self.files(&journal))
    }

    fn files(self: &Arc<Self>, path: &Path) -> Arc<dyn Files> {
        // What an earlier process has left has been written long ago.
        for (name, inode) in names_in(path) {
            let mut operations = self.operations.lock();
            operations.synced.insert(inode, std::fs::read(path.join(name)).unwrap());
            operations.lost_files.remove(&inode);
        }
        self.operations.lock().lost_folders.remove(path);
        self.note_names(path);
        Arc::new(FaultyFiles { files: OsFiles::open(path).unwrap(), folder: path.to_owned(), plan: Arc::clone(self) })
    }

    /// From now on everything works, unless the process is dead.
    pub fn heal(&self) {
        self.operations.lock().healed = true;
    }

    /// What `kill -9` is to a process: nothing reaches the disk any more.
    pub fn die(&self) {
        self.operations.lock().dead = true;
    }

    pub fn is_dead(&self) -> bool {
        self.operations.lock().dead
    }

    /// Whether the fault has been met.
    pub fn has_failed(&self) -> bool {
        self.operations.lock().since.is_some()
    }

    /// How many operations there were: of each kind, and in all.
    pub fn counted(&self) -> ([u64; Kind::ALL.len()], u64) {
        let operations = self.operations.lock();
        (operations.counted, operations.all)
    }

    /// From now on this byte can't be read in files whose names end so.
    pub fn make_unreadable(&self, name_end: &str, offset: u64) {
        self.operations.lock().unreadable.push((name_end.to_owned(), offset));
    }

    /// The most bytes that were asked for at once.
    pub fn longest_read(&self) -> usize {
        self.operations.lock().longest_read
    }

    /// Leaves on the disk what was synced, and nothing else. After [`Plan::die`].
    pub fn cut_power(&self) {
        let operations = self.operations.lock();
        for (folder, names) in &operations.names {
            for name in names_in(folder).keys() {
                std::fs::remove_file(folder.join(name)).unwrap();
            }
            for (name, inode) in names {
                let contents = operations.synced.get(inode).map_or(&[][..], |contents| contents);
                std::fs::write(folder.join(name), contents).unwrap();
            }
        }
    }

    fn note_synced(&self, inode: u64, file: &dyn FileHandle) -> io::Result<()> {
        let mut contents = vec![0; usize::try_from(file.length()?).unwrap()];
        let length = file.read_at(&mut contents, 0)?;
        contents.truncate(length);
        // The rest is mostly room that is not used yet.
        let used = contents.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        contents.truncate(used + 64);
        let mut operations = self.operations.lock();
        if !operations.lost_files.contains(&inode) {
            operations.synced.insert(inode, contents);
        }
        Ok(())
    }

    fn note_names(&self, folder: &Path) {
        let mut operations = self.operations.lock();
        if !operations.lost_folders.contains(folder) {
            operations.names.insert(folder.to_owned(), names_in(folder));
        }
    }

    fn can_read(&self, name: &str, offset: u64, length: usize) -> bool {
        let range = offset..offset + length as u64;
        !self.operations.lock().unreadable.iter().any(|(end, at)| name.ends_with(end) && range.contains(at))
    }

    fn fate(&self, kind: Kind) -> Fate {
        let mut operations = self.operations.lock();
        operations.all += 1;
        operations.counted[kind as usize] += 1;
        if operations.dead {
            return Fate::Fails(EIO);
        }
        let Some(fault) = self.fault.filter(|_| !operations.healed) else { return Fate::Happens };
        let number = fault.kind.map_or(operations.all, |kind| operations.counted[kind as usize]);
        let is_here = number == fault.nth && fault.kind.is_none_or(|of| of == kind) && operations.since.is_none();
        if is_here {
            operations.since = Some(operations.all);
        }
        let Some(since) = operations.since else { return Fate::Happens };
        let lasts = |operations_max: Option<u64>| operations_max.is_none_or(|max| operations.all - since < max);
        match fault.way {
            Way::Fails(error) if is_here => Fate::Fails(error),
            Way::Half(error) if is_here => Fate::Half(error),
            Way::Done(error) if is_here => Fate::Done(error),
            Way::Gone(max) if lasts(max) => Fate::Fails(EIO),
            Way::Full(max) if lasts(max) && kind == Kind::WriteAt => Fate::Half(ENOSPC),
            Way::Full(max) if lasts(max) && kind == Kind::Create => Fate::Fails(ENOSPC),
            Way::ReadOnly(max) if lasts(max) && kind.changes() => Fate::Fails(EROFS),
            Way::NoDescriptors(max) if lasts(max) && matches!(kind, Kind::Create | Kind::Open | Kind::List) => {
                Fate::Fails(EMFILE)
            }
            Way::Dies if is_here => {
                operations.dead = true;
                Fate::Fails(EIO)
            }
            Way::DiesHalfway if is_here => {
                operations.dead = true;
                Fate::Half(EIO)
            }
            _ => Fate::Happens,
        }
    }

    fn meet<T>(&self, kind: Kind, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.fate(kind) {
            Fate::Happens => work(),
            Fate::Fails(error) | Fate::Half(error) => Err(io::Error::from_raw_os_error(error)),
            Fate::Done(error) => work().and_then(|_| Err(io::Error::from_raw_os_error(error))),
        }
    }
}

fn names_in(folder: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().ino())).collect()
}

struct FaultyFiles {
    files: OsFiles,
    folder: PathBuf,
    plan: Arc<Plan>,
}

struct FaultyFile {
    file: Arc<dyn FileHandle>,
    inode: u64,
    name: String,
    plan: Arc<Plan>,
}

impl FaultyFiles {
    fn handle(&self, name: &str, file: Arc<dyn FileHandle>) -> Arc<dyn FileHandle> {
        let inode = std::fs::metadata(self.folder.join(name)).map_or(0, |metadata| metadata.ino());
        Arc::new(FaultyFile { file, inode, name: name.to_owned(), plan: Arc::clone(&self.plan) })
    }
}

impl Files for FaultyFiles {
    fn create(&self, name: &str) -> io::Result<Arc<dyn FileHandle>> {
        self.plan.meet(Kind::Create, || {
            let created = self.files.create(name)?;
            let inode = std::fs::metadata(self.folder.join(name))?.ino();
            let mut operations = self.plan.operations.lock();
            operations.synced.remove(&inode);
            operations.lost_files.remove(&inode);
            drop(operations);
            Ok(self.handle(name, created))
        })
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn FileHandle>> {
        self.plan.meet(Kind::Open, || Ok(self.handle(name, self.files.open(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.plan.meet(Kind::Rename, || self.files.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.plan.meet(Kind::Remove, || self.files.remove(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.plan.meet(Kind::List, || self.files.list())
    }

    fn sync_folder(&self) -> io::Result<()> {
        // On the disk of a test, a real sync would bring nothing.
        let synced = self.plan.meet(Kind::SyncFolder, || {
            self.plan.note_names(&self.folder);
            Ok(())
        });
        if synced.is_err() {
            self.plan.operations.lock().lost_folders.insert(self.folder.clone());
        }
        synced
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.plan.meet(Kind::FreeBytes, || self.files.free_bytes())
    }

    fn check_in_place(&self) -> io::Result<()> {
        self.plan.meet(Kind::CheckInPlace, || self.files.check_in_place())
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.files.path_of(name)
    }
}

impl FileHandle for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.plan.fate(Kind::WriteAt) {
            Fate::Happens => self.file.write_at(bytes, offset),
            Fate::Fails(error) => Err(io::Error::from_raw_os_error(error)),
            Fate::Half(error) => {
                self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
                Err(io::Error::from_raw_os_error(error))
            }
            Fate::Done(error) => {
                self.file.write_at(bytes, offset)?;
                Err(io::Error::from_raw_os_error(error))
            }
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.plan.meet(Kind::ReadAt, || {
            let mut operations = self.plan.operations.lock();
            operations.longest_read = operations.longest_read.max(bytes.len());
            drop(operations);
            if !self.plan.can_read(&self.name, offset, bytes.len()) {
                return Err(io::Error::from_raw_os_error(EIO));
            }
            self.file.read_at(bytes, offset)
        })
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.plan.meet(Kind::Sync, || self.plan.note_synced(self.inode, &*self.file));
        if synced.is_err() {
            self.plan.operations.lock().lost_files.insert(self.inode);
        }
        synced
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.plan.meet(Kind::SetLength, || self.file.set_length(length))
    }

    fn length(&self) -> io::Result<u64> {
        self.plan.meet(Kind::Length, || self.file.length())
    }

    fn is_linked(&self) -> io::Result<bool> {
        self.plan.meet(Kind::IsLinked, || self.file.is_linked())
    }
}
