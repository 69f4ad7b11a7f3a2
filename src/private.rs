//! What the service keeps is for its own user only: counts may be secret, and password hashes are.

use std::fs::{Metadata, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
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
    match std::fs::metadata(folder).and_then(|metadata| set(folder, &metadata, &mut changed)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        tightened => match tightened.and_then(|()| tighten_content(folder, true, &mut changed)) {
            Ok(()) => {}
            Err(error) => tracing::warn!(
                %error, folder = %folder.display(),
                "The data folder or a file in it can be used by others, and that can't be changed"
            ),
        },
    }
    if changed > 0 {
        tracing::info!(changed, folder = %folder.display(), "The data folder and its files are now only for its owner");
    }
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
    let wanted = if metadata.is_dir() { FOLDER_MODE } else { FILE_MODE };
    if mode & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode & wanted))?;
    *changed += 1;
    Ok(())
}
