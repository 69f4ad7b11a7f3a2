//! A dashboard of one's own, and a browser that keeps its cookies.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use http_body_util::BodyExt;
use hyper::header::{CONTENT_TYPE, COOKIE, HOST, HeaderName, LOCATION, ORIGIN, SET_COOKIE};
use hyper::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use warp::reply::Response;

use crate::admin::{Options, Request, State, password, session};
use crate::batch::Batches;
use crate::domain::{Ack, EventName, Hour};
use crate::flusher;
use crate::journal::{self, DataDir};
use crate::names::Limits;
use crate::node::{self, Clock, Node};
use crate::store::Store;
use crate::store::admin::{AccountChange, AdminKey, Superuser};
use crate::store::sqlite::SqliteStore;

pub const PASSWORD: &str = "quiet-lamp-9-orchard";

pub struct Dashboard {
    pub state: &'static State,
    pub node: Arc<Node>,
    pub batches: Arc<Batches>,
    pub store: Arc<dyn Store>,
    pub now: Arc<Mutex<DateTime<Utc>>>,
    folder: tempfile::TempDir,
}

impl Dashboard {
    pub async fn open() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::lock(temporary.path()).unwrap();
        let now: Arc<Mutex<DateTime<Utc>>> = Arc::new(Mutex::new("2024-05-15T10:30:00Z".parse().unwrap()));
        let clock = Arc::clone(&now);
        let clock: Clock = Arc::new(move || (*clock.lock()).into());
        let store = SqliteStore::open(&temporary.path().join("events.sqlite")).unwrap();
        let store = Arc::new(store.with_clock(Arc::clone(&clock)));
        let of_node = node::Options {
            journal: journal::Options { ack: Ack::Memory, ..journal::Options::default() },
            flush: flusher::Options { interval_ms: 1000, shutdown_timeout_ms: 1000, retry_backoff_max_ms: 1000 },
            fold_interval_ms: 1000,
            limits: Limits { events_max: 1000 },
        };
        let (node, _) = Node::recover(dir, store, of_node, clock).unwrap();
        let node = Arc::new(node);
        let state = Box::leak(Box::new(State::new(&node, options)));
        let (batches, store) = (Arc::clone(&node.batches), Arc::clone(&node.store));
        Self { state, node, batches, store, now, folder: temporary }
    }

    pub fn pass(&self, time: TimeDelta) {
        *self.now.lock() += time;
    }

    pub async fn add_user(&self, name: &str) {
        let user = Superuser {
            name: name.to_owned(),
            password_hash: password::hash(PASSWORD.as_bytes()).unwrap(),
            disabled: false,
            created_at: *self.now.lock(),
            last_login_at: None,
        };
        self.account(AccountChange::AddUser(user)).await;
    }

    /// Straight to the store, as another node or a command does it.
    pub async fn account(&self, change: AccountChange) {
        let at = *self.now.lock();
        assert!(self.store.change_account(change, "a test", at).await.unwrap());
    }

    /// Returns the secret.
    pub async fn add_key(&self, expires_at: Option<DateTime<Utc>>) -> (i64, String) {
        let secret = format!("{}{}", session::KEY_PREFIX, session::secret().unwrap());
        let key = AdminKey {
            id: 0,
            label: "a test".into(),
            secret_hash: session::hash_of(&secret),
            hint: "etk_".into(),
            created_by: "ann".into(),
            created_at: *self.now.lock(),
            expires_at,
            revoked_at: None,
            last_used_at: None,
        };
        self.account(AccountChange::AddKey(key)).await;
        (self.store.admin_keys().await.unwrap().last().unwrap().id, secret)
    }

    /// Runs SQL behind the store's back.
    pub fn execute(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.folder.path().join("events.sqlite")).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    /// Counts in the current hour and flushes.
    pub async fn count(&self, event: &str, count: u64) {
        let hour = Hour::containing(*self.now.lock());
        self.batches.record(&EventName::parse(event).unwrap(), hour, count).unwrap();
        self.node.flusher.flush().await.unwrap();
    }

    pub fn browser(&self) -> Browser {
        Browser { state: self.state, cookies: Vec::new(), headers: vec![("origin", "http://tracker.example".into())] }
    }

    pub async fn signed_in(&self, user: &str) -> Browser {
        let mut browser = self.browser();
        let answer = browser.post("/admin/login", &[("user", user), ("password", PASSWORD)]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        browser
    }
}

pub struct Browser {
    state: &'static State,
    pub cookies: Vec<(String, String)>,
    pub headers: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: impl hyper::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn location(&self) -> &str {
        self.header(LOCATION)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Browser {
    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, String::new()).await
    }

    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send(Method::POST, path, body).await
    }

    /// With one's own password once more.
    pub async fn confirm(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.post(path, &[fields, &[("current", PASSWORD)]].concat()).await
    }

    pub async fn send(&mut self, method: Method, path: &str, body: String) -> Answer {
        let (head, body) = self.respond(method, path, body).await.into_parts();
        for cookie in head.headers.get_all(SET_COOKIE) {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !value.is_empty() {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        let is_stream = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
        let bytes = if is_stream { Default::default() } else { body.collect().await.unwrap().to_bytes() };
        Answer { status: head.status, headers: head.headers, body: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// A live stream, which goes on until it is dropped or ended.
    pub async fn listen(&self) -> Response {
        let response = self.respond(Method::GET, "/admin/live", String::new()).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        response
    }

    async fn respond(&self, method: Method, path: &str, body: String) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "tracker.example".parse().unwrap());
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            headers.insert(COOKIE, cookies.join("; ").parse().unwrap());
        }
        for (name, value) in &self.headers {
            if (*name != "origin" || method == Method::POST) && !value.is_empty() {
                headers.insert(HeaderName::from_static(name), value.parse().unwrap());
            }
        }
        if method == Method::POST {
            headers.entry(CONTENT_TYPE).or_insert("application/x-www-form-urlencoded".parse().unwrap());
        }
        let request = Request {
            method,
            uri: path.parse().unwrap(),
            headers,
            peer: "127.0.0.1".parse().unwrap(),
            body: body.into(),
        };
        self.state.answer(request).await
    }

    pub fn without_origin(mut self) -> Self {
        self.headers.retain(|(name, _)| *name != ORIGIN.as_str());
        self
    }
}
