//! The files of the program are its user's own: nobody else on the machine can read them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::{Backend, TestApp};

/// Everything below and including a folder that others than its owner may use, with its rights.
fn open_to_others(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        if mode != expected {
            found.push((path.clone(), mode));
        }
        if metadata.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_new_data_folder_and_its_files_are_only_for_their_owner() {
    let mut app = TestApp::with(Backend::Sqlite).shell("umask 0").start().await;
    assert_eq!(app.post("/api/events/login?ack=store").await.status, 201);
    assert_eq!(open_to_others(&app.data_dir()), []);
    let log = app.stop().await;
    assert!(!log.contains("only for its owner"), "nothing was to be mended: {log}");
}

#[tokio::test]
async fn commands_create_private_files_too() {
    for (arguments, input) in [
        (["create-random-events", "--events", "100"].as_slice(), ""),
        (["create-superuser", "--user", "ann", "--password-stdin"].as_slice(), "correct horse battery staple\n"),
    ] {
        let app = TestApp::with(Backend::Sqlite).shell("umask 0").build().await;
        let output = app.run_with(arguments, input).await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(open_to_others(&app.data_dir()), [], "{arguments:?}");
    }
}

#[tokio::test]
async fn an_existing_data_folder_is_tightened_at_the_start_and_the_log_says_so_once() {
    let mut app = TestApp::start(Backend::Sqlite).await;
    app.count("login", 7).await;
    app.kill().await;
    let folder = app.data_dir();
    let mut waiting = vec![folder.clone()];
    let mut files = 0;
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            set_mode(&path, 0o755);
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            set_mode(&path, 0o644);
            files += 1;
        }
    }
    assert!(files >= 4, "journal, database, LOCK and STORE: {files}");
    app.restart().await;
    assert_eq!(open_to_others(&folder), []);
    assert_eq!(app.total("login").await, 7);
    let log = app.stop().await;
    assert_eq!(log.matches("only for its owner").count(), 1, "{log}");
}

#[tokio::test]
async fn the_rights_of_what_a_link_leads_to_are_left_alone() {
    let mut app = TestApp::start(Backend::Sqlite).await;
    app.kill().await;
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    set_mode(elsewhere.path(), 0o644);
    std::os::unix::fs::symlink(elsewhere.path(), app.data_dir().join("link")).unwrap();
    set_mode(&app.data_dir(), 0o755);
    app.restart().await;
    assert_eq!(std::fs::metadata(elsewhere.path()).unwrap().permissions().mode() & 0o777, 0o644);
}
