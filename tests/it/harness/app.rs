//! The real program in a folder of its own and an empty environment.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event_tracker::domain::{BatchId, BatchSeq, EventName, Hour, HourRange, HourlyCount, WriterId};
use event_tracker::store::{self, Store};
use parking_lot::Mutex;

use super::answer::{self, Answer};
use super::postgres::Cluster;
use super::{PATIENCE, eventually, signal};

/// Of the stores in tests that have more than one.
pub const PARTITIONS: u16 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    Sqlite,
    Postgres,
    /// PostgreSQL with [`PARTITIONS`].
    Partitioned,
}

/// How to start: built up, then [`Setup::start`].
#[derive(Clone)]
pub struct Setup {
    backend: Backend,
    settings: BTreeMap<String, String>,
    data_dir: Option<PathBuf>,
    database_url: Option<String>,
    rows: Vec<HourlyCount>,
    /// What a shell does before it becomes the program.
    shell: Option<String>,
}

pub struct TestApp {
    setup: Setup,
    folder: Arc<tempfile::TempDir>,
    process: Option<Process>,
    client: reqwest::Client,
}

struct Process {
    child: Child,
    address: String,
    start_line: String,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    /// Ends with the process.
    logging: Option<JoinHandle<()>>,
}

impl Setup {
    /// Sets one key, such as `flush.interval_ms`, in the environment.
    pub fn config(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.insert(format!("EVENT_TRACKER__{}", key.replace('.', "__").to_uppercase()), value.to_string());
        self
    }

    /// Listens where it can listen again after it was killed: a free port of 127.0.0.1 may be
    /// somebody's by then.
    pub fn keep_address(self) -> Self {
        static ADDRESSES: AtomicU8 = AtomicU8::new(1);
        let [.., high, low] = std::process::id().to_be_bytes();
        let number = ADDRESSES.fetch_add(1, Ordering::Relaxed);
        self.config("http.listen", format!("127.{number}.{high}.{}:8000", low.clamp(1, 254)))
    }

    /// Uses this folder in place of a temporary one.
    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data_dir = Some(path.to_owned());
        self
    }

    /// Runs these commands in a shell that then becomes the program, such as `ulimit -n 256`.
    pub fn shell(mut self, commands: &str) -> Self {
        self.shell = Some(commands.to_owned());
        self
    }

    pub fn database_url(mut self, url: &str) -> Self {
        self.database_url = Some(url.to_owned());
        self
    }

    /// Puts counts into the store before the program starts: `(YYYYMMDDHH, event, count)`.
    pub fn stored(mut self, rows: &[(&str, &str, u64)]) -> Self {
        self.rows = rows
            .iter()
            .map(|(date, event, count)| HourlyCount {
                event: EventName::parse(event).unwrap(),
                hour: parse_hour(date),
                count: *count,
            })
            .collect();
        self.rows.sort();
        self
    }

    /// The program, not started.
    pub async fn build(mut self) -> TestApp {
        let folder = Arc::new(tempfile::Builder::new().prefix("event-tracker-test").tempdir().unwrap());
        if self.backend == Backend::Partitioned {
            self = self.config("store.partitions", PARTITIONS);
        }
        if self.backend != Backend::Sqlite && self.database_url.is_none() {
            let cluster = Cluster::shared();
            self.database_url = Some(cluster.url(&cluster.create_database().await));
        }
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        TestApp { setup: self, folder, process: None, client }
    }

    pub async fn start(self) -> TestApp {
        let mut app = self.build().await;
        app.put_rows().await;
        app.restart().await;
        app
    }
}

pub fn parse_hour(date: &str) -> Hour {
    HourRange::parse(Some(date), Some(date)).unwrap().first
}

impl TestApp {
    pub fn with(backend: Backend) -> Setup {
        Setup { backend, settings: BTreeMap::new(), data_dir: None, database_url: None, rows: Vec::new(), shell: None }
    }

    pub async fn start(backend: Backend) -> Self {
        Self::with(backend).start().await
    }

    async fn put_rows(&self) {
        if self.setup.rows.is_empty() {
            return;
        }
        std::fs::create_dir_all(self.data_dir()).unwrap();
        let store = self.store().await;
        let id = BatchId { writer: WriterId(rand::random()), seq: BatchSeq::FIRST };
        store.commit(crate::store_contract::request(id, self.setup.rows.clone())).await.unwrap();
        store.close().await;
    }

    /// Its store, as another process has it.
    pub async fn store(&self) -> Arc<dyn Store> {
        let url = self.setup.database_url.clone().unwrap_or_default();
        let partitions = if self.setup.backend == Backend::Partitioned { PARTITIONS } else { 1 };
        let options = store::Options { url, partitions, ..store::Options::default() };
        store::open(&options, &self.data_dir()).await.unwrap()
    }

    /// The name of its database on the shared cluster.
    pub fn database(&self) -> String {
        let url = self.setup.database_url.as_deref().expect("it has a database");
        url.rsplit('/').next().unwrap().to_owned()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.setup.data_dir.clone().unwrap_or_else(|| self.folder.path().join("data"))
    }

    /// The same database and settings, another data folder: a second node. Not started.
    pub async fn another_node(&self) -> Self {
        let mut setup = self.setup.clone();
        (setup.rows, setup.data_dir) = (Vec::new(), None);
        setup.build().await
    }

    /// Changes one key from its next start on.
    pub fn configure(&mut self, key: &str, value: impl ToString) {
        self.setup = self.setup.clone().config(key, value);
    }

    /// A command of the program on the same data folder, database and settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_event-tracker");
        // The tests may run in the background, where a shell has some signals ignored; the program would keep
        // to that.
        let mut command = Command::new("/usr/bin/env");
        command.arg("--default-signal");
        match &self.setup.shell {
            None => command.arg(program),
            Some(commands) => command.args(["/bin/sh", "-c", &format!("{commands}\nexec \"$0\" \"$@\""), program]),
        };
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).env_clear();
        command.env("EVENT_TRACKER__HTTP__LISTEN", "127.0.0.1:0");
        command.env("EVENT_TRACKER__DATA_DIR", self.data_dir()).envs(&self.setup.settings);
        if let Some(url) = &self.setup.database_url {
            command.env("DATABASE_URL", url);
        }
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, "").await
    }

    /// The same with something on standard input.
    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Who is refused at once does not read it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let started = Instant::now();
        // What it says fits into the pipes.
        while child.try_wait().unwrap().is_none() {
            if started.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{arguments:?} does not end: {:?}", child.wait_with_output());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.wait_with_output().unwrap()
    }

    /// Starts it; after [`TestApp::kill`] or [`TestApp::stop`] on the same folder and store.
    pub async fn restart(&mut self) {
        let mut command = self.command(&["serve"]);
        let process = tokio::task::spawn_blocking(move || Process::start(&mut command)).await.unwrap();
        self.process = Some(process);
        eventually("the program to live", async || {
            let answer = self.client.get(self.url("/livez")).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    #[track_caller]
    fn process(&self) -> &Process {
        self.process.as_ref().expect("the program does not run")
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.process().address
    }

    pub fn pid(&self) -> u32 {
        self.process().child.id()
    }

    pub fn start_line(&self) -> &str {
        &self.process().start_line
    }

    /// What it printed on standard output after its first line.
    pub fn said(&self) -> String {
        self.process().stdout.lock().clone()
    }

    pub fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address())
    }

    pub fn client(&self) -> reqwest::Client {
        self.client.clone()
    }

    pub async fn get(&self, target: &str) -> Answer {
        Answer::of(self.client.get(self.url(target)).send().await.unwrap()).await.unwrap()
    }

    pub async fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        let request = headers.iter().fold(self.client.get(self.url(target)), |request, (n, v)| request.header(*n, *v));
        Answer::of(request.send().await.unwrap()).await.unwrap()
    }

    pub async fn post(&self, target: &str) -> Answer {
        Answer::of(self.client.post(self.url(target)).send().await.unwrap()).await.unwrap()
    }

    /// Any request.
    pub async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, self.url(target)).body(body.into());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Answer::of(request.send().await.unwrap()).await.unwrap()
    }

    /// The target is sent byte for byte.
    pub async fn raw(&self, method: &str, target: impl AsRef<[u8]>) -> Answer {
        answer::raw(self.address(), method, target.as_ref(), &[]).await
    }

    /// Counts and insists on success.
    pub async fn count(&self, event: &str, num: u64) {
        let answer = self.post(&format!("/api/events/{event}/{num}")).await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }

    pub async fn totals(&self) -> BTreeMap<String, u64> {
        let answer = self.get("/api/events/unique").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        totals(&answer)
    }

    pub async fn total(&self, event: &str) -> u64 {
        self.totals().await.get(event).copied().unwrap_or_default()
    }

    /// `(date, event, count)` as the range route gives them.
    pub async fn range(&self, start_date: &str, end_date: &str) -> Vec<(String, String, u64)> {
        let answer = self.get(&format!("/api/events?start_date={start_date}&end_date={end_date}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        rows(&answer)
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("the program does not run");
        process.child.kill().unwrap();
        process.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// SIGTERM; insists that it ends with code 0. Returns its log.
    pub async fn stop(&mut self) -> String {
        self.signal("TERM");
        let (status, log) = self.ended().await;
        assert!(status.success(), "{status}: {log}");
        log
    }

    /// Waits for it to end by itself.
    pub async fn ended(&mut self) -> (ExitStatus, String) {
        let mut process = self.process.take().expect("the program does not run");
        let mut status = None;
        let started = Instant::now();
        while status.is_none() {
            assert!(started.elapsed() < PATIENCE, "the program does not end: {}", process.stderr.lock());
            tokio::time::sleep(Duration::from_millis(5)).await;
            status = process.child.try_wait().unwrap();
        }
        process.logging.take().unwrap().join().unwrap();
        let log = process.stderr.lock().clone();
        (status.unwrap(), log)
    }

    /// `event-tracker audit` on the store: it must balance. Returns the sum of all rows.
    pub async fn audit(&self) -> u64 {
        let output = self.run(&["audit", "--json"]).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "the books do not balance: {out}{err}");
        let sums: serde_json::Value = serde_json::from_str(&out).unwrap();
        sums["rows"].as_u64().unwrap()
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout_text, stderr) = <(Arc<Mutex<String>>, Arc<Mutex<String>>)>::default();
        let logging = collect(child.stderr.take().unwrap(), &stderr);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut start_line = String::new();
        stdout.read_line(&mut start_line).unwrap();
        let Some((_, rest)) = start_line.split_once("http://") else {
            let status = child.wait().unwrap();
            logging.join().unwrap();
            panic!("the program did not start ({status}): {start_line}{}", stderr.lock());
        };
        let address = rest.split(|c: char| c == ',' || c == '/' || c.is_whitespace()).next().unwrap().to_owned();
        collect(stdout, &stdout_text);
        Self { child, address, start_line, stdout: stdout_text, stderr, logging: Some(logging) }
    }
}

/// Reads to the end, also when nobody looks at it: a closed pipe would end the program at its next line.
fn collect(mut from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            into.lock().push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    })
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the program at {}\n{}---", self.address, self.stderr.lock());
        }
    }
}

/// The one-element lists of a listing, opened.
pub fn items(answer: &Answer) -> Vec<serde_json::Value> {
    let body = answer.json();
    assert_eq!(body["status"], true, "{body}");
    let lists = body["response"].as_array().unwrap().iter();
    lists
        .map(|list| {
            let [item] = list.as_array().unwrap().as_slice() else { panic!("not one element: {list}") };
            item.clone()
        })
        .collect()
}

pub fn totals(answer: &Answer) -> BTreeMap<String, u64> {
    let items = items(answer).into_iter();
    items.map(|item| (item["event"].as_str().unwrap().to_owned(), item["count"].as_u64().unwrap())).collect()
}

pub fn rows(answer: &Answer) -> Vec<(String, String, u64)> {
    let text = |item: &serde_json::Value, key: &str| item[key].as_str().unwrap().to_owned();
    let items = items(answer).into_iter();
    items.map(|item| (text(&item, "date"), text(&item, "event"), item["count"].as_u64().unwrap())).collect()
}
