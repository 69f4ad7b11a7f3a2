//! Programs that the tests need: found where Debian, Ubuntu and the usual build machines have them, and
//! installed where they are missing. Where that can't be done the tests fail, they are never skipped.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The folders of `PATH`, then `more`.
pub fn folders(more: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(more).collect()
}

/// What `find` finds, after installing `packages` if need be.
pub fn needed<T>(packages: &[&str], find: impl Fn() -> Option<T>) -> T {
    // One installation at a time: the package system has one lock.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    find().unwrap_or_else(|| {
        install(packages);
        find().unwrap_or_else(|| panic!("{packages:?} are installed but do not hold what is needed"))
    })
}

fn install(packages: &[&str]) {
    let sudo: &[&str] = if is_root() { &[] } else { &["sudo", "-n"] };
    let update = vec!["update"];
    let install = [&["install", "-y", "--no-install-recommends"], packages].concat();
    for arguments in [update, install] {
        let words: Vec<&str> = sudo.iter().chain(&["apt-get"]).chain(&arguments).copied().collect();
        let output = Command::new(words[0]).args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").output();
        let succeeded = output.as_ref().is_ok_and(|output| output.status.success());
        assert!(succeeded, "{packages:?} are missing and can't be installed: {words:?} gave {output:?}");
    }
}

pub fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|metadata| metadata.uid() == 0)
}
