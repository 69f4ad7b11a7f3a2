//! The file as all connections of this process see it: the same one from the first to the last, or an
//! error. SQLite itself goes on reading and writing a file that has been removed or replaced.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::{connection, statements};
use crate::store::StoreError;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Write,
    Read,
    /// Reads only, and also never makes a file.
    Audit,
}

pub(super) struct DataFile {
    path: PathBuf,
    /// The identity that the file must have: as the caller said, or that of the first contact.
    expected: Mutex<Option<String>>,
    opened: Mutex<Option<Opened>>,
    /// Those of the last connections. A WAL is of its file only; with another one SQLite would mix the two.
    last: Mutex<Option<Marks>>,
    /// One connection is opened at a time.
    opening: Mutex<()>,
    /// Why the file can't be used now.
    failure: Mutex<Option<StoreError>>,
}

/// What the connections that are open have in common.
struct Opened {
    identity: String,
    marks: Marks,
    watches_wal: bool,
    connections: usize,
    /// It was found to be another file. Only when the last connection is closed a new one is opened, so
    /// that never two files, or two WALs of one file, are in use beside each other.
    moved: bool,
}

/// Device and number of the file and of its WAL, which is there at the latest after the first transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Marks {
    file: (u64, u64),
    wal: Option<(u64, u64)>,
}

impl Marks {
    fn of(path: &Path) -> Option<Self> {
        let number = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let mut wal = OsString::from(path);
        wal.push("-wal");
        Some(Self { file: number(path)?, wal: number(Path::new(&wal)) })
    }
}

impl DataFile {
    pub(super) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            expected: Mutex::default(),
            opened: Mutex::default(),
            last: Mutex::default(),
            opening: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file that is open has been met, whatever the caller knows of it.
    pub(super) fn expect(&self, identity: Option<String>) {
        let met = self.opened.lock().as_ref().filter(|opened| !opened.moved).map(|opened| opened.identity.clone());
        *self.expected.lock() = identity.or(met);
    }

    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.lock().clone()
    }

    pub(super) fn has_moved(&self) -> bool {
        self.opened.lock().as_ref().is_some_and(|opened| opened.moved)
    }

    /// Whether the connections that are open are still of the file at the path, and that of the expected
    /// database.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let checked = self.compare();
        *self.failure.lock() = checked.as_ref().err().cloned();
        checked
    }

    fn compare(&self) -> Result<(), StoreError> {
        let mut opened = self.opened.lock();
        let Some(opened) = opened.as_mut() else { return Ok(()) };
        let now = Marks::of(&self.path);
        let is_same = now.is_some_and(|now| {
            now.file == opened.marks.file && (opened.marks.wal.is_none() || now.wal == opened.marks.wal)
        });
        if opened.moved || !is_same {
            opened.moved = true;
            return Err(self.unavailable(match now {
                None => "the file is gone: put it back",
                Some(_) => "the file or its WAL was removed or replaced while it was open",
            }));
        }
        if let Some(now) = now.filter(|_| opened.watches_wal) {
            opened.marks = now;
            *self.last.lock() = Some(now);
        }
        let expected = self.expected.lock();
        match &*expected {
            Some(expected) if *expected != opened.identity => Err(self.another(&opened.identity, expected)),
            _ => Ok(()),
        }
    }

    /// A new connection, also counted.
    pub(super) fn open(&self, role: Role) -> Result<Connection, StoreError> {
        let _turn = self.opening.lock();
        let opened = self.try_open(role);
        *self.failure.lock() = opened.as_ref().err().cloned();
        opened
    }

    fn try_open(&self, role: Role) -> Result<Connection, StoreError> {
        self.compare()?;
        let expected = self.expected.lock().clone();
        let before = Marks::of(&self.path);
        if let (Some(last), Some(now)) = (*self.last.lock(), before)
            && last.file != now.file
            && last.wal.is_some()
            && last.wal == now.wal
        {
            return Err(self.unavailable("the file was replaced, but not its WAL (-wal): remove that, too"));
        }
        match (&expected, before) {
            (Some(_), None) => return Err(self.unavailable("the file is gone: put it back")),
            (Some(expected), Some(_)) => self.meet(expected)?,
            // Also a file that is empty so far: somebody has just made it.
            (None, before) if role == Role::Read && (before.is_none() || connection::look(&self.path)?.is_none()) => {
                drop(connection::open_to_write(&self.path)?);
            }
            _ => {}
        }
        let connection = match role {
            Role::Write => connection::open_to_write(&self.path)?,
            Role::Read | Role::Audit => connection::open_to_read(&self.path)?,
        };
        let identity = statements::identity(&connection)?;
        if let Some(expected) = expected.filter(|expected| *expected != identity) {
            return Err(self.another(&identity, &expected));
        }
        let now = Marks::of(&self.path).ok_or_else(|| self.unavailable("the file is gone: put it back"))?;
        if before.is_some_and(|before| before.file != now.file) {
            return Err(self.unavailable("the file was replaced while it was opened"));
        }
        // The WAL comes and goes while only audits look.
        let watches_wal = role != Role::Audit;
        let marks = if watches_wal { now } else { Marks { wal: None, ..now } };
        *self.last.lock() = Some(marks);
        let mut opened = self.opened.lock();
        match opened.as_mut() {
            Some(opened) => opened.connections += 1,
            None => {
                let identity = identity.clone();
                *opened = Some(Opened { identity, marks, watches_wal, connections: 1, moved: false });
            }
        }
        drop(opened);
        // Unless somebody has said otherwise meanwhile.
        self.expected.lock().get_or_insert(identity);
        Ok(connection)
    }

    /// Looks without changing anything.
    fn meet(&self, expected: &str) -> Result<(), StoreError> {
        match connection::look(&self.path)? {
            Some(identity) if identity == expected => Ok(()),
            Some(identity) => Err(self.another(&identity, expected)),
            None => {
                let at = self.path.display();
                Err(StoreError::AnotherDatabase(format!("SQLite at {at}: there is no event-tracker schema in it")))
            }
        }
    }

    /// Whether only the WAL is gone: then what it holds is not lost while somebody has it open.
    pub(super) fn has_lost_its_wal(&self) -> bool {
        let opened = self.opened.lock();
        let marks = opened.as_ref().filter(|opened| opened.moved).map(|opened| opened.marks);
        marks.is_some_and(|marks| Marks::of(&self.path).is_some_and(|now| now.file == marks.file))
    }

    /// To be called after the connection is closed.
    pub(super) fn note_closed(&self) {
        let mut opened = self.opened.lock();
        if let Some(last) = opened.as_mut() {
            last.connections -= 1;
            if last.connections == 0 {
                *opened = None;
            }
        }
    }

    fn unavailable(&self, why: &str) -> StoreError {
        StoreError::Unavailable(format!("SQLite at {}: {why}", self.path.display()))
    }

    fn another(&self, found: &str, expected: &str) -> StoreError {
        let at = self.path.display();
        StoreError::AnotherDatabase(format!("SQLite at {at}: its identity is {found}, and {expected} is expected"))
    }
}
