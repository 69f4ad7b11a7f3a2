//! The data folder: created, and locked for the life of the process.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::segment;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("can't use the data folder {path}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("the data folder {path} is in use by another process")]
    InUse { path: PathBuf },
}

/// The folder of one process, held for its life.
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Creates the folder when it is missing and locks it, before anything in it is read.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn lock(path: &Path) -> Result<Self, OpenError> {
        let folder_error = |source| OpenError::Folder { path: path.to_owned(), source };
        let journal = path.join("journal");
        if !journal.is_dir() {
            fs::create_dir_all(&journal).map_err(folder_error)?;
            segment::sync_dir(path).map_err(folder_error)?;
        }
        let lock = File::options().create(true).write(true).truncate(false).open(path.join("LOCK"));
        let lock = lock.map_err(folder_error)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
            Err(fs::TryLockError::Error(source)) => Err(folder_error(source)),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }
}
