//! The files of one folder, through the few operations that the journal needs.
//!
//! Everything that a disk may refuse goes through [`Files`] and [`FileHandle`], so that a test can
//! fail the nth operation of any kind. [`OsFiles`] opens the folder once and names its files relative
//! to that descriptor: no later shortage of descriptors can keep the folder from being synced, and a
//! folder that was put in the place of ours is never written to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags};

/// Access rights of everything that the program creates: its owner's.
const OWNER_ONLY: u32 = 0o600;

/// A folder's files by their names. All errors are the disk's.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Files: Send + Sync + 'static {
    /// Creates an empty file; fails when the name is taken.
    fn create(&self, name: &str) -> io::Result<Arc<dyn FileHandle>>;
    /// Opens an existing file to be read and written.
    fn open(&self, name: &str) -> io::Result<Arc<dyn FileHandle>>;
    /// Puts the file in the place of `to`, whether or not there is one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes the names durable. An error is final: see the rules of failure in [`crate::journal`].
    fn sync_folder(&self) -> io::Result<()>;
    /// How many bytes may still be written.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Fails when the path does not lead to this folder any more: it was deleted, moved or replaced,
    /// and the next start would not find what is in it.
    fn check_in_place(&self) -> io::Result<()>;
    /// 128 bits that are not used anywhere else: the operating system's, unless a simulation deals them out.
    fn random_bits(&self) -> io::Result<[u8; 16]> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).map_err(io::Error::other)?;
        Ok(bits)
    }
    /// For messages to the operator.
    fn path_of(&self, name: &str) -> PathBuf;
}

/// One open file. All errors are the disk's.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait FileHandle: Send + Sync {
    /// Writes all of `bytes`; an error may leave any part of them in the file.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads up to the end of `bytes`; 0: the file ends here.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes the contents durable. An error is final.
    fn sync(&self) -> io::Result<()>;
    fn set_length(&self, length: u64) -> io::Result<()>;
    fn length(&self) -> io::Result<u64>;
    /// When it was written last, since 1970; `None` where nobody keeps that.
    fn modified(&self) -> io::Result<Option<Duration>> {
        Ok(None)
    }
    /// Whether the file still has a name: what is written to one without is gone with the process.
    fn is_linked(&self) -> io::Result<bool>;
}

/// A folder of the operating system.
pub struct OsFiles {
    folder: File,
    path: PathBuf,
}

impl OsFiles {
    /// Opens an existing folder.
    ///
    /// # Errors
    /// When there is no such folder or it can't be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = OpenOptions::new().read(true).custom_flags(OFlags::DIRECTORY.bits() as i32).open(path)?;
        Ok(Self { folder, path: path.to_owned() })
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<Arc<dyn FileHandle>> {
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, name, flags, Mode::from_raw_mode(OWNER_ONLY))?;
        Ok(Arc::new(File::from(file)))
    }
}

impl Files for OsFiles {
    fn create(&self, name: &str) -> io::Result<Arc<dyn FileHandle>> {
        self.open_file(name, OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn FileHandle>> {
        self.open_file(name, OFlags::empty())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.folder, from, &self.folder, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.folder)? {
            // A name that is no UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.folder.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::fstatvfs(&self.folder)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn check_in_place(&self) -> io::Result<()> {
        let (held, found) = (self.folder.metadata()?, std::fs::metadata(&self.path)?);
        if (held.dev(), held.ino()) == (found.dev(), found.ino()) {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, "another folder stands in its place"))
        }
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl FileHandle for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn modified(&self) -> io::Result<Option<Duration>> {
        Ok(self.metadata()?.modified()?.duration_since(UNIX_EPOCH).ok())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstat(self)?.st_nlink > 0)
    }
}

/// Writes a small file anew: aside, synced, renamed, folder synced. Its old contents stand until the
/// new ones are whole.
///
/// # Errors
/// When the disk refuses a step; after the rename only the folder's sync can fail.
pub fn replace(files: &dyn Files, name: &str, contents: &[u8]) -> io::Result<()> {
    let aside = format!("{name}.new");
    remove_if_there(files, &aside)?;
    let written = files.create(&aside).and_then(|file| {
        file.write_at(contents, 0)?;
        file.sync()
    });
    if let Err(error) = written.and_then(|()| files.rename(&aside, name)) {
        let _ = files.remove(&aside);
        return Err(error);
    }
    files.sync_folder()
}

/// The whole of a small file; `None` when there is no such file.
///
/// # Errors
/// When it can't be read.
pub fn read_small(files: &dyn Files, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match files.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut contents = vec![0; usize::try_from(file.length()?).map_err(io::Error::other)?];
    let mut read = 0;
    while read < contents.len() {
        match file.read_at(&mut contents[read..], read as u64)? {
            0 => break,
            length => read += length,
        }
    }
    contents.truncate(read);
    Ok(Some(contents))
}

/// # Errors
/// When there is such a file and it can't be removed.
pub fn remove_if_there(files: &dyn Files, name: &str) -> io::Result<()> {
    match files.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;

    #[test]
    fn a_folder_is_reached_by_the_descriptor_it_was_opened_with_wherever_its_path_leads() {
        let place = tempfile::tempdir().unwrap();
        let (path, moved) = (place.path().join("journal"), place.path().join("moved"));
        std::fs::create_dir(&path).unwrap();
        let files = OsFiles::open(&path).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        // To open it once more for this would fail when descriptors are short, too.
        files.sync_folder().unwrap();
        files.create("segment").unwrap().sync().unwrap();
        assert!(moved.join("segment").exists() && !path.exists());
        assert!(files.check_in_place().is_err());
    }
}
