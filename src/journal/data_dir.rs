//! The data folder: created, and locked for the life of the process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Files, OsFiles};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("can't use the data folder {path}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("the data folder {path} is in use by another process")]
    InUse { path: PathBuf },
}

/// The folder of one process, held for its life.
pub struct DataDir {
    path: PathBuf,
    /// What stands beside the journal.
    pub root: Arc<dyn Files>,
    /// The segments.
    pub journal: Arc<dyn Files>,
    _lock: Option<File>,
}

impl DataDir {
    /// Creates the folder when it is missing and locks it, before anything in it is read.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn lock(path: &Path) -> Result<Self, OpenError> {
        let folder_error = |source| OpenError::Folder { path: path.to_owned(), source };
        create_folder(path).map_err(folder_error)?;
        create_folder(&path.join("journal")).map_err(folder_error)?;
        let lock = File::options().create(true).write(true).truncate(false).open(path.join("LOCK"));
        let lock = lock.map_err(folder_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.to_owned() }),
            Err(fs::TryLockError::Error(source)) => return Err(folder_error(source)),
        }
        let root = Arc::new(OsFiles::open(path).map_err(folder_error)?);
        let journal = Arc::new(OsFiles::open(&path.join("journal")).map_err(folder_error)?);
        Ok(Self { path: path.to_owned(), root, journal, _lock: Some(lock) })
    }

    /// Folders of another kind, as a test gives them: nothing is locked.
    #[must_use]
    pub fn of(path: &Path, root: Arc<dyn Files>, journal: Arc<dyn Files>) -> Self {
        Self { path: path.to_owned(), root, journal, _lock: None }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Creates a folder with all that are missing above it, each one durable before anything in it is.
fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            create_folder(parent)?;
            parent
        }
        _ => Path::new("."),
    };
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created?,
    }
    File::open(parent)?.sync_all()
}
