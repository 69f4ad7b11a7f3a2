//! A read on a node is exact for what that node acknowledged before it began, at every moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::harness::app::{rows, totals};
use crate::harness::postgres::Cluster;
use crate::harness::proxy::{Fault, Proxy};
use crate::harness::{Answer, Backend, Tally, TestApp, Traffic, on_both_stores, on_partitions};

on_both_stores!(reads_never_miss_what_was_acknowledged_nor_show_what_was_not_sent, hours_sum_up_to_totals,);
on_partitions!(reads_never_miss_what_was_acknowledged_nor_show_what_was_not_sent, hours_sum_up_to_totals);

/// Of each reader.
const READS: usize = 80;

type Counts = BTreeMap<String, u64>;

/// One way to learn the counts of events.
#[derive(Clone, Copy, Debug)]
enum Route {
    Totals,
    Range,
    Histogram,
}

impl Route {
    async fn read(self, http: &reqwest::Client, url: &str, days: &[String; 2]) -> Counts {
        let get = async |target: String| {
            let answer = Answer::of(http.get(format!("{url}{target}")).send().await.unwrap()).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer
        };
        match self {
            Self::Totals => totals(&get("/api/events/unique".into()).await),
            Self::Range => {
                let answer = get(format!("/api/events?start_date={}&end_date={}", days[0], days[1])).await;
                sums(&rows(&answer))
            }
            Self::Histogram => {
                // In the order of time: what is admitted in between is in the second day or not yet due.
                let mut total = 0;
                for day in days {
                    let answer = get(format!("/api/events/histogram/shared/{day}?format=json")).await;
                    total += answer.json()["response"]["total"].as_u64().unwrap();
                }
                [("shared".to_owned(), total)].into()
            }
        }
    }
}

fn sums(rows: &[(String, String, u64)]) -> Counts {
    let mut sums = Counts::new();
    for (_, event, count) in rows {
        *sums.entry(event.clone()).or_default() += count;
    }
    sums
}

/// Today and tomorrow: a test may run at midnight.
fn days() -> [String; 2] {
    let now = chrono::Utc::now();
    [now, now + chrono::TimeDelta::days(1)].map(|day| day.format("%Y%m%d").to_string())
}

async fn reads_never_miss_what_was_acknowledged_nor_show_what_was_not_sent(backend: Backend) {
    let (_proxy, app) = start(backend).await;
    let tally = Arc::new(Tally::default());
    let days = days();
    app.post("/api/events/before?ack=store").await;
    let traffic = Traffic::start(&app, &tally, 6, "");
    traffic.answered(6).await;
    // A second node commits all the time, so that what is read can't simply be remembered.
    let elsewhere = if backend == Backend::Postgres { Some(Elsewhere::start(&app).await) } else { None };

    let mut readers = tokio::task::JoinSet::new();
    // Those who read the same at the same time share an answer.
    for route in [Route::Totals, Route::Totals, Route::Totals, Route::Range, Route::Range, Route::Histogram] {
        let (http, url, days) = (app.client(), app.url(""), days.clone());
        let tally = Arc::clone(&tally);
        readers.spawn(async move {
            let mut last = Counts::new();
            for _ in 0..READS {
                let (acknowledged, read) = (tally.acknowledged(), route.read(&http, &url, &days).await);
                let sent = tally.sent();
                for (event, count) in acknowledged {
                    if matches!(route, Route::Histogram) && event != "shared" {
                        continue;
                    }
                    let found = read.get(&event).copied().unwrap_or_default();
                    let fits =
                        (count..=sent[&event]).contains(&found) && found >= last.get(&event).copied().unwrap_or(0);
                    assert!(fits, "{route:?} of {event}: {found} is not within {count} and {}, {last:?}", sent[&event]);
                }
                last = read;
            }
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    traffic.stop().await;
    if let Some(elsewhere) = elsewhere {
        elsewhere.stop().await;
    }
    let mut expected = tally.acknowledged();
    expected.insert("before".into(), 1);
    let mut totals = app.totals().await;
    totals.remove("elsewhere");
    assert_eq!(totals, expected);
}

/// On PostgreSQL, batches are committed and forgotten between the snapshot of a read and its answer.
async fn start(backend: Backend) -> (Option<Proxy>, TestApp) {
    let setup = TestApp::with(backend).config("flush.interval_ms", 3);
    if backend == Backend::Sqlite {
        return (None, setup.start().await);
    }
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    let proxy = Proxy::start(url::Url::parse(&url).unwrap().port().unwrap()).await;
    proxy.set(Fault::SlowReads);
    // The machine has much else to do, and what is tried here is not how soon it connects.
    let setup = setup.config("store.connect_timeout_ms", 60_000);
    let app = setup.database_url(&proxy.url(&url)).start().await;
    (Some(proxy), app)
}

/// Another node on the same database, which counts an event of its own.
struct Elsewhere {
    node: TestApp,
    posting: tokio::task::JoinHandle<()>,
}

impl Elsewhere {
    async fn start(app: &TestApp) -> Self {
        let mut node = app.another_node().await;
        node.restart().await;
        let (http, url) = (node.client(), node.url("/api/events/elsewhere"));
        let posting = tokio::spawn(async move { while http.post(&url).send().await.is_ok() {} });
        Self { node, posting }
    }

    async fn stop(mut self) {
        self.node.stop().await;
        self.posting.await.unwrap();
    }
}

async fn hours_sum_up_to_totals(backend: Backend) {
    let stored = [("2020091112", "shared", 5), ("2020091113", "shared", 6), ("2020091113", "client-0", 7)];
    let mut app = TestApp::with(backend).config("flush.interval_ms", 3).stored(&stored).start().await;
    let tally = Arc::new(Tally::default());
    for _ in 0..5 {
        let traffic = Traffic::start(&app, &tally, 4, "");
        traffic.answered(60).await;
        traffic.stop().await;
        let (rows, totals) = (app.range("19700101", "99991231").await, app.totals().await);
        assert_eq!(sums(&rows), totals);
        let distinct: std::collections::BTreeSet<_> = rows.iter().map(|(date, event, _)| (date, event)).collect();
        assert_eq!(distinct.len(), rows.len(), "one row for each hour and event");
    }
    let totals = app.totals().await;
    assert_eq!(totals["shared"], 11 + tally.acknowledged()["shared"]);
    app.stop().await;
    assert_eq!(app.audit().await, totals.values().sum::<u64>());
}
