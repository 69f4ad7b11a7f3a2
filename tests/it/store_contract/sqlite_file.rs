//! The SQLite file goes away, or another one comes in its place, while it is open or before.

use std::path::{Path, PathBuf};

use event_tracker::store::sqlite::SqliteStore;

use super::*;
use crate::harness::eventually;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.path("events.sqlite")).unwrap())
    }

    /// With one batch in it.
    async fn counted(&self) -> Arc<dyn Store> {
        let store = self.open();
        assert_eq!(commit(&store, 1).await, Ok(Commit::Applied));
        store
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

async fn commit(store: &Arc<dyn Store>, seq: u64) -> Result<Commit, StoreError> {
    store.commit(request(batch(1, seq), rows([("a", 1, 1)]))).await
}

fn is_unavailable<T>(outcome: &Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Unavailable(_)))
}

fn is_another<T>(outcome: &Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::AnotherDatabase(_)))
}

/// As the flusher does it.
async fn until_committed(store: &Arc<dyn Store>, seq: u64) {
    eventually("the batch to be committed", async || match commit(store, seq).await {
        Ok(Commit::Applied) => true,
        Ok(Commit::Stands(Some(entry))) if entry.last_seq.0 == seq => true,
        Ok(stands) => panic!("{stands:?}"),
        Err(StoreError::Unavailable(_)) => false,
        Err(error) => panic!("{error}"),
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_removed_takes_nothing_any_more_and_no_new_one_is_made() {
    let folder = Folder::new();
    let store = folder.counted().await;
    folder.rename("events.sqlite", "aside");
    for _ in 0..3 {
        let committed = commit(&store, 2).await;
        assert!(is_unavailable(&committed), "{committed:?}");
        assert!(is_unavailable(&store.position(vec![]).await));
        assert!(is_unavailable(&store.totals(vec![]).await));
    }
    assert!(!folder.path("events.sqlite").exists(), "{:?}", folder.names());
    // Back in its place it is the same as before.
    folder.rename("aside", "events.sqlite");
    until_committed(&store, 2).await;
    eventually("reads to work", async || store.position(vec![]).await.is_ok()).await;
    assert_eq!(balanced_books(&store).await.ledger, 2);
}

#[tokio::test]
async fn a_folder_that_is_removed_takes_nothing_any_more() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("data")).unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path("data/events.sqlite")).unwrap());
    assert_eq!(commit(&store, 1).await, Ok(Commit::Applied));
    std::fs::remove_dir_all(folder.path("data")).unwrap();
    for _ in 0..3 {
        assert!(is_unavailable(&commit(&store, 2).await));
        assert!(is_unavailable(&store.identity().await));
    }
    assert!(folder.names().is_empty());
}

#[tokio::test]
async fn another_file_in_its_place_is_neither_read_nor_written() {
    let (folder, other) = (Folder::new(), Folder::new());
    let store = folder.counted().await;
    other.counted().await.close().await;
    let contents = std::fs::read(other.path("events.sqlite")).unwrap();
    std::fs::copy(other.path("events.sqlite"), folder.path("copy")).unwrap();
    folder.rename("copy", "events.sqlite");
    // The WAL of the file that was there would make a mixture of the two.
    eventually("the WAL to be told of", async || {
        matches!(commit(&store, 2).await, Err(StoreError::Unavailable(why)) if why.contains("remove that, too"))
    })
    .await;
    std::fs::remove_file(folder.path("events.sqlite-wal")).unwrap();
    eventually("the other database to be recognised", async || is_another(&commit(&store, 2).await)).await;
    eventually("reads to recognise it", async || is_another(&store.totals(vec![]).await)).await;
    assert_eq!(std::fs::read(folder.path("events.sqlite")).unwrap(), contents);
}

#[tokio::test]
async fn a_backup_in_its_place_is_read_from_then_on() {
    let folder = Folder::new();
    let store = folder.counted().await;
    let sql = format!("vacuum into '{}'", folder.path("backup").display());
    rusqlite::Connection::open(folder.path("events.sqlite")).unwrap().execute_batch(&sql).unwrap();
    assert_eq!(commit(&store, 2).await, Ok(Commit::Applied));
    std::fs::remove_file(folder.path("events.sqlite-wal")).unwrap();
    folder.rename("backup", "events.sqlite");
    assert!(is_unavailable(&commit(&store, 3).await));
    eventually("the backup to be in use", async || store.position(vec![]).await.is_ok()).await;
    let stands = stands(1, 1, &rows([("a", 1, 1)]));
    eventually("the ledger to be found where it was", async || commit(&store, 3).await == Ok(stands)).await;
}

#[tokio::test]
async fn a_wal_that_is_removed_is_noticed_and_nothing_in_it_is_lost() {
    let folder = Folder::new();
    let store = folder.counted().await;
    for seq in 2..=6 {
        std::fs::remove_file(folder.path("events.sqlite-wal")).unwrap();
        assert!(is_unavailable(&commit(&store, seq).await));
        until_committed(&store, seq).await;
        eventually("reads to work", async || store.position(vec![]).await.is_ok()).await;
        assert_eq!(balanced_books(&store).await.ledger, i128::from(seq));
    }
}

#[tokio::test]
async fn where_a_database_is_expected_none_is_made() {
    let folder = Folder::new();
    let store = folder.open();
    store.expect(Some("0".repeat(32)));
    assert!(is_unavailable(&commit(&store, 1).await));
    assert!(is_unavailable(&store.identity().await));
    assert!(folder.names().is_empty());
    std::fs::write(folder.path("events.sqlite"), "").unwrap();
    assert!(is_another(&commit(&store, 1).await));
    assert!(is_another(&store.identity().await));
    assert_eq!(folder.path("events.sqlite").metadata().unwrap().len(), 0);
    store.expect(None);
    assert_eq!(commit(&store, 1).await, Ok(Commit::Applied));
}

#[tokio::test]
async fn a_database_of_another_identity_than_the_expected_one_takes_nothing() {
    let folder = Folder::new();
    folder.counted().await.close().await;
    let store = folder.open();
    store.expect(Some("0".repeat(32)));
    assert!(is_another(&commit(&store, 2).await));
    assert!(is_another(&store.totals(vec![]).await));
    store.close().await;
    let store = folder.open();
    let identity = store.identity().await.unwrap();
    store.expect(Some(identity));
    assert_eq!(commit(&store, 2).await, Ok(Commit::Applied));
}

fn contents(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn an_audit_changes_no_file_whatever_its_schema() {
    let folder = Folder::new();
    folder.counted().await.close().await;
    let path = folder.path("events.sqlite");
    rusqlite::Connection::open(&path).unwrap().execute_batch("pragma user_version = 3").unwrap();
    let before = contents(&path);
    let refused = SqliteStore::open_for_audit(&path).err().unwrap();
    assert!(matches!(&refused, StoreError::Refused(why) if why.contains("schema")), "{refused}");
    assert_eq!(contents(&path), before);
}
