//! The journal can't be written: its limit is reached, or the disk is full. POSTs are refused with
//! the truth, reads go on, and counting resumes by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::harness::postgres::Cluster;
use crate::harness::proxy::{Fault, Proxy};
use crate::harness::{Backend, Tally, TestApp, eventually};

/// Posts new names until one is refused with `counted: no`; gives how many that took.
async fn fill(app: &TestApp, tally: &Tally, name: &str) -> u64 {
    for number in 0.. {
        let event = format!("{name}-{number}-{}", "x".repeat(200));
        let answer = tally.post(&app.client(), &app.url(""), &event, 1, "").await.unwrap();
        if answer.status >= 300 {
            let (internal, _) = answer.fails(503);
            if answer.counted().as_deref() == Some("no") {
                assert!(internal.starts_with("journal_unavailable: "), "{internal}");
                return number;
            }
        }
        assert!(number < 20_000, "the journal is never full");
    }
    unreachable!()
}

async fn counts_again(app: &TestApp, tally: &Tally) {
    eventually("counting to resume", async || {
        tally.post(&app.client(), &app.url(""), "again", 3, "").await.unwrap().status < 300
    })
    .await;
    assert_eq!(app.get("/readyz").await.status, 200);
}

async fn is_unready(app: &TestApp) {
    let (internal, _) = app.get("/readyz").await.fails(503);
    assert!(internal.contains("journal"), "{internal}");
    assert_eq!(app.get("/livez").await.status, 200, "restarting it would not help");
}

#[tokio::test]
async fn beyond_the_limit_of_the_journal_posts_are_refused_until_the_store_takes_some() {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    let proxy = Proxy::start(url::Url::parse(&url).unwrap().port().unwrap()).await;
    let mut app = TestApp::with(Backend::Postgres)
        .database_url(&proxy.url(&url))
        .config("flush.interval_ms", 20)
        .config("flush.retry_backoff_max_ms", 100)
        .config("store.connect_timeout_ms", 500)
        .config("journal.segment_bytes_max", 65_536)
        .config("journal.bytes_max", 131_072)
        .start()
        .await;
    let tally = Arc::new(Tally::default());
    eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
    proxy.set(Fault::Closed);
    let taken = fill(&app, &tally, "first").await;
    assert!(taken > 300, "{taken} names of 200 bytes are not 128 KiB");
    is_unready(&app).await;
    proxy.set(Fault::None);
    counts_again(&app, &tally).await;
    app.kill().await;
    app.restart().await;
    eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
    let mut totals = app.totals().await;
    totals.retain(|_, total| *total > 0);
    tally.settle(&totals);
    app.stop().await;
    assert_eq!(app.audit().await, totals.values().sum::<u64>());
}

/// A file system of one megabyte. Only root may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(path).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_posts_and_counting_resumes_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("small")) else {
        eprintln!("no right to mount a small file system: not tested here");
        return;
    };
    // The store is elsewhere, so that the journal alone is in need.
    let store = format!("sqlite:{}", folder.path().join("events.sqlite").display());
    let setup = TestApp::with(Backend::Sqlite).data_dir(&disk.0.join("data")).config("store.url", store);
    let mut app = setup.config("flush.interval_ms", 3_600_000).start().await;
    let tally = Arc::new(Tally::default());
    tally.post(&app.client(), &app.url(""), "before", 5, "").await.unwrap();
    let ballast = disk.0.join("ballast");
    // Writes until nothing fits any more; that it fails in the end is the point.
    let _ = std::fs::write(&ballast, vec![1; 2 << 20]);
    fill(&app, &tally, "full").await;
    is_unready(&app).await;
    assert_eq!(app.total("before").await, 5, "reads go on");
    std::fs::remove_file(&ballast).unwrap();
    counts_again(&app, &tally).await;
    app.kill().await;
    app.restart().await;
    let mut totals = app.totals().await;
    totals.retain(|_, total| *total > 0);
    tally.settle(&totals);
    app.stop().await;
    assert_eq!(app.audit().await, totals.values().sum::<u64>());
    drop(app);
}

/// A disk that is full but for what is on it.
fn fill_up(disk: &SmallDisk) -> PathBuf {
    let ballast = disk.0.join("ballast");
    // Writes until nothing fits any more; that it fails in the end is the point.
    let _ = std::fs::write(&ballast, vec![1; 2 << 20]);
    ballast
}

#[tokio::test]
async fn a_node_starts_on_a_full_disk_delivers_and_counts_again_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("small")) else {
        eprintln!("no right to mount a small file system: not tested here");
        return;
    };
    for has_reserve in [true, false] {
        let data = disk.0.join(format!("data-{has_reserve}"));
        let cluster = Cluster::shared();
        let url = cluster.url(&cluster.create_database().await);
        let proxy = Proxy::start(url::Url::parse(&url).unwrap().port().unwrap()).await;
        let setup = TestApp::with(Backend::Postgres).database_url(&proxy.url(&url)).data_dir(&data);
        let mut app = setup.config("flush.interval_ms", 50).config("store.connect_timeout_ms", 500).start().await;
        eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
        proxy.set(Fault::Closed);
        app.count("before", 5).await;
        let reserve = data.join("journal/RESERVE");
        // Where the rest of the disk is small, there is none.
        app.kill().await;
        if has_reserve {
            std::fs::write(&reserve, vec![0; 256 << 10]).unwrap();
        } else {
            let _ = std::fs::remove_file(&reserve);
        }
        proxy.set(Fault::None);
        let ballast = fill_up(&disk);
        app.restart().await;
        // The reserve is given up for the first segment, so there is one from the beginning.
        let during = if has_reserve { 3 } else { 0 };
        if has_reserve {
            app.count("during", during).await;
        }
        eventually("what was counted to be delivered", async || {
            app.get("/api/events/unique").await.status == 200 && app.total("before").await == 5
        })
        .await;
        eventually("the store to have it", async || {
            app.store().await.audit().await.unwrap().rows == 5 + during as i128
        })
        .await;
        std::fs::remove_file(&ballast).unwrap();
        let tally = Tally::default();
        counts_again(&app, &tally).await;
        app.kill().await;
        app.restart().await;
        eventually("the store to be reached", async || app.total("again").await >= 3).await;
        app.stop().await;
        assert_eq!(app.audit().await, 5 + during + tally.acknowledged()["again"]);
    }
}

#[tokio::test]
async fn a_node_that_meets_its_store_for_the_first_time_on_a_full_disk_goes_on_and_delivers() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("small")) else {
        eprintln!("no right to mount a small file system: not tested here");
        return;
    };
    let data = disk.0.join("data");
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    let proxy = Proxy::start(url::Url::parse(&url).unwrap().port().unwrap()).await;
    proxy.set(Fault::Closed);
    let setup = TestApp::with(Backend::Postgres).database_url(&proxy.url(&url)).data_dir(&data);
    let mut app = setup.config("flush.interval_ms", 50).config("store.connect_timeout_ms", 500).start().await;
    app.count("before", 5).await;
    let _ = std::fs::remove_file(data.join("journal/RESERVE"));
    let ballast = fill_up(&disk);
    assert!(!data.join("STORE").exists());
    // Which store this is can't be noted.
    proxy.set(Fault::None);
    eventually("the store to have it", async || app.store().await.audit().await.is_ok_and(|books| books.rows == 5))
        .await;
    assert_eq!(app.get("/livez").await.status, 200);
    std::fs::remove_file(&ballast).unwrap();
    eventually("the store to be noted", async || data.join("STORE").exists()).await;
    app.stop().await;
    assert_eq!(app.audit().await, 5);
}
