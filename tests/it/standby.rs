//! A commit that a synchronous standby does not have yet is not safe, however visible it is.

use crate::harness::postgres::Cluster;
use crate::harness::{Backend, TestApp, eventually};

fn segments(app: &TestApp, extension: &str) -> usize {
    let files = std::fs::read_dir(app.data_dir().join("journal")).unwrap().flatten();
    files.filter(|file| file.file_name().to_string_lossy().ends_with(extension)).count()
}

#[tokio::test]
async fn a_batch_is_let_go_only_when_the_synchronous_standby_has_its_commit() {
    let cluster = Cluster::private();
    let database = cluster.create_database().await;
    let setup = TestApp::with(Backend::Postgres).database_url(&cluster.url(&database));
    let mut app = setup
        .config("flush.interval_ms", 50)
        .config("flush.retry_backoff_max_ms", 100)
        .config("store.connect_timeout_ms", 500)
        .config("store.statement_timeout_ms", 500)
        .start()
        .await;
    assert_eq!(app.post("/api/events/login/5?ack=store").await.status, 201);
    // The answer may come before the segment has its new name.
    eventually("the batch to be let go", async || segments(&app, ".committed") == 1).await;
    let kept = 1;
    // From now on every commit waits for a standby that is gone.
    let owner = cluster.connect(&database).await;
    owner.batch_execute("alter system set synchronous_standby_names = 'gone'").await.unwrap();
    owner.batch_execute("select pg_reload_conf()").await.unwrap();
    drop(owner);
    app.count("login", 70).await;
    let waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    let waiting = async || {
        let client = cluster.connect(&database).await;
        client.query_one(waits, &[]).await.unwrap().get::<_, i64>(0)
    };
    eventually("a commit to wait for the standby", async || waiting().await > 0).await;
    // After a crash the commit is visible, and still the standby lacks it.
    cluster.stop("immediate");
    cluster.start();
    let visible = async || {
        let client = cluster.connect(&database).await;
        client
            .query_one("select cast(sum(count) as bigint) from counts where event = 'login'", &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
    };
    assert_eq!(visible().await, 75);
    // The node asks again, and its question waits for the standby, too.
    eventually("the node to ask again", async || waiting().await > 0).await;
    assert_eq!(segments(&app, ".committed"), kept, "the batch was let go");
    assert!(segments(&app, ".journal") >= 2, "the batch was let go");

    let owner = cluster.connect(&database).await;
    owner.batch_execute("alter system reset synchronous_standby_names").await.unwrap();
    owner.batch_execute("select pg_reload_conf()").await.unwrap();
    eventually("the batch to be let go", async || segments(&app, ".committed") > kept).await;
    assert_eq!(app.total("login").await, 75);
    app.stop().await;
    assert_eq!(app.audit().await, 75);
}
