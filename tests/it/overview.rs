//! The overview, when its numbers take long to add up.

use crate::harness::postgres::Cluster;
use crate::harness::{Backend, Superuser, TestApp, eventually};

#[tokio::test]
async fn the_overview_opens_while_what_was_counted_of_each_event_is_still_added_up() {
    let app = TestApp::with(Backend::Postgres).start().await;
    assert_eq!(app.post("/api/events/login/3?ack=store").await.status, 201);
    let ada = Superuser::of(&app).await;
    let mut database = Cluster::shared().connect(&app.database()).await;
    let held = database.transaction().await.unwrap();
    held.batch_execute("lock table hourly_counts in access exclusive mode").await.unwrap();
    let page = ada.page(&app, "/admin/").await;
    assert!(page.contains("data-adding-up") && page.contains("Still being added up"), "{page}");
    assert!(page.contains(r#"data-total="3""#) && !page.contains(r#"id="top""#), "what is quickly known: {page}");
    held.rollback().await.unwrap();
    eventually("the most popular events", async || {
        let page = ada.page(&app, "/admin/").await;
        !page.contains("data-adding-up") && page.contains(r#"id="top""#) && page.contains("login")
    })
    .await;
}
