//! The files of the service are for its own user only: counts may be secret, and password hashes are.

use std::fs::{Metadata, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// All that others may do.
const OTHERS: u32 = 0o077;
/// Set on folders that are meant for everybody, such as `/tmp`.
const STICKY: u32 = 0o1000;
/// Folders of the data folder that are ours.
const OUR_FOLDERS: [&str; 2] = ["journal", "import-"];

/// From now on nobody else may use a file or folder that this process creates. To be called first of
/// all, while there is only one thread.
pub fn create_private_files() {
    #[cfg(target_os = "linux")]
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Takes all rights from others on a data folder and on the files in it, as an older version or a
/// copy may have left them, and says so in one line. Links are not followed. A folder that does not
/// exist is left alone.
///
/// Never fails: a folder of another user works as well as it did, and the log warns of it.
pub fn tighten(folder: &Path) {
    let mut changed = 0;
    if let Err(error) = tighten_all(folder, &mut changed) {
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        tracing::warn!(
            %error, folder = %folder.display(),
            "The data folder or a file in it can be used by others, and that can't be changed"
        );
    }
    if changed > 0 {
        tracing::info!(changed, folder = %folder.display(), "The data folder and its files are now only for its owner");
    }
}

/// Goes on after an error and gives the first.
fn tighten_all(folder: &Path, changed: &mut u64) -> io::Result<()> {
    let metadata = std::fs::metadata(folder)?;
    if metadata.permissions().mode() & STICKY != 0 {
        return Err(io::Error::other("the folder is shared by everybody"));
    }
    let folder_itself = set(folder, &metadata, changed);
    let content = tighten_content(folder, true, changed);
    folder_itself.and(content)
}

/// All files of a folder, and those of its folders that are ours. Goes on after an error and gives the
/// first.
fn tighten_content(folder: &Path, is_top: bool, changed: &mut u64) -> io::Result<()> {
    let mut first = Ok(());
    for entry in std::fs::read_dir(folder)? {
        let tightened = entry.and_then(|entry| {
            let (path, name) = (entry.path(), entry.file_name());
            // Of the link itself, where it is one.
            let metadata = entry.metadata()?;
            let is_ours = OUR_FOLDERS.iter().any(|ours| name.to_string_lossy().starts_with(ours));
            if metadata.is_file() {
                set(&path, &metadata, changed)
            } else if metadata.is_dir() && (is_ours || !is_top) {
                set(&path, &metadata, changed)?;
                tighten_content(&path, false, changed)
            } else {
                Ok(())
            }
        });
        // The other side of a rename or a removal by a node that runs.
        let tightened = tightened.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) });
        first = first.and(tightened);
    }
    first
}

fn set(path: &Path, metadata: &Metadata, changed: &mut u64) -> io::Result<()> {
    let mode = metadata.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))?;
    *changed += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_whose_rights_can_t_be_changed_or_that_is_everybody_s_is_left_as_it_is() {
        // The system refuses it for the first of them, to everybody.
        assert!(tighten_all(Path::new("/proc/self"), &mut 0).is_err());
        tighten(Path::new("/proc/self"));
        let shared = tempfile::tempdir().unwrap();
        std::fs::set_permissions(shared.path(), Permissions::from_mode(0o1777)).unwrap();
        std::fs::write(shared.path().join("of somebody"), "").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let before = mode(&shared.path().join("of somebody"));
        tighten(shared.path());
        assert_eq!((mode(shared.path()), mode(&shared.path().join("of somebody"))), (0o1777, before));
        tighten(&shared.path().join("does not exist"));
        assert!(!shared.path().join("does not exist").exists());
    }
}
