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
        create_folder(path, &sync_folder).map_err(folder_error)?;
        create_folder(&path.join("journal"), &sync_folder).map_err(folder_error)?;
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

/// Creates a folder with all that are missing above it, each one durable before anything in it is: what
/// is acknowledged in it must not be gone with its name.
fn create_folder(path: &Path, sync: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if path.is_dir() {
        // A start that was killed here has made it and not come to this. A parent that may not be opened is
        // none of ours, and no reason not to start.
        let _ = sync(parent);
        return Ok(());
    }
    if parent != Path::new(".") {
        create_folder(parent, sync)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created?,
    }
    sync(parent)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_folder_above_each_new_one_is_synced_before_anything_is_created_in_that() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path();
        let synced = RefCell::new(Vec::new());
        let sync = |folder: &Path| {
            if folder.starts_with(top) {
                let below: Vec<_> = fs::read_dir(folder)?.map(|entry| entry.unwrap().path()).collect();
                let [made] = below.as_slice() else { panic!("{below:?} in {}", folder.display()) };
                assert_eq!(fs::read_dir(made)?.count(), 0, "{} is used already", made.display());
                synced.borrow_mut().push(folder.to_owned());
            }
            Ok(())
        };
        create_folder(&top.join("srv/tracker/data"), &sync).unwrap();
        assert_eq!(*synced.borrow(), [top.to_owned(), top.join("srv"), top.join("srv/tracker")]);
    }

    #[test]
    fn a_folder_whose_name_may_not_be_durable_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let refuse = |folder: &Path| if folder == place.path() { Err(io::Error::other("EIO")) } else { Ok(()) };
        assert!(create_folder(&place.path().join("data/journal"), &refuse).is_err());
        assert!(!place.path().join("data/journal").exists());
    }

    #[test]
    fn a_folder_that_a_killed_start_has_made_is_synced_by_the_next_one() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("data")).unwrap();
        let synced = RefCell::new(Vec::new());
        let sync = |folder: &Path| {
            synced.borrow_mut().push(folder.to_owned());
            Ok(())
        };
        create_folder(&place.path().join("data"), &sync).unwrap();
        create_folder(&place.path().join("data/journal"), &sync).unwrap();
        let (top, data) = (place.path().to_owned(), place.path().join("data"));
        assert_eq!(*synced.borrow(), [top.clone(), top, data]);
    }
}
