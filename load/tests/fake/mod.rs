//! A service small enough to trust, that can misbehave on purpose.
// Each of the test programs needs a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_load::target::Target;

/// What goes wrong, at which requests (counted from 1, over all connections; reads of totals excepted).
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Acknowledged, but not counted.
    pub lose: Option<u64>,
    /// Counted twice.
    pub double: Option<u64>,
    /// Every so many requests are refused with 503 and `counted` = `no`.
    pub refuse_every: Option<u64>,
    /// Every so many requests, the connection ends without an answer; every other time after counting.
    pub reset_every: Option<u64>,
    /// At this request everything stands still for so long.
    pub freeze: Option<(u64, Duration)>,
    /// Bodies come in chunks, in several writes.
    pub chunked: bool,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<String, u64>,
}

#[derive(Debug)]
pub struct Fake {
    pub port: u16,
    state: Arc<Mutex<State>>,
    requests: Arc<AtomicU64>,
}

enum Answer {
    Body(u16, String),
    NotModified,
    HangUp,
}

impl Fake {
    pub fn start(faults: Faults) -> Self {
        Self::on(Arc::default(), faults)
    }

    /// Another node of the same store.
    pub fn beside(&self, faults: Faults) -> Self {
        Self::on(Arc::clone(&self.state), faults)
    }

    fn on(state: Arc<Mutex<State>>, faults: Faults) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<AtomicU64>::default();
        let service = Service { faults, state: Arc::clone(&state), requests: Arc::clone(&requests) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let service = service.clone();
                std::thread::spawn(move || service.serve(stream));
            }
        });
        Self { port, state, requests }
    }

    pub fn target(&self) -> Target {
        Target::local(self.port)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.state.lock().unwrap().counts.clone()
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Clone)]
struct Service {
    faults: Faults,
    state: Arc<Mutex<State>>,
    requests: Arc<AtomicU64>,
}

impl Service {
    /// One connection. Ends with the client, or by a fault.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let _ = stream.set_nodelay(true);
        let mut buffer = Vec::new();
        loop {
            let (head_len, method, path, headers) = loop {
                if let Some(head) = parse(&buffer) {
                    break head;
                }
                read_more(&mut stream, &mut buffer)?;
            };
            let header = |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v);
            let body_len: usize = header("content-length").map_or(0, |len| len.parse().unwrap());
            while buffer.len() < head_len + body_len {
                read_more(&mut stream, &mut buffer)?;
            }
            let body: Vec<u8> = buffer.drain(..head_len + body_len).skip(head_len).collect();
            let etag = header("if-none-match").cloned();
            let close = header("connection").is_some_and(|value| value == "close");
            match self.answer(&method, &path, &body, etag.as_deref()) {
                Answer::HangUp => return None,
                Answer::NotModified => stream.write_all(b"HTTP/1.1 304 Not Modified\r\n\r\n").ok()?,
                Answer::Body(status, body) => self.write(&mut stream, status, &body)?,
            }
            if close {
                return None;
            }
        }
    }

    fn write(&self, stream: &mut TcpStream, status: u16, body: &str) -> Option<()> {
        if !self.faults.chunked {
            let len = body.len();
            let answer = format!("HTTP/1.1 {status} X\r\nETag: \"v1\"\r\nContent-Length: {len}\r\n\r\n{body}");
            return stream.write_all(answer.as_bytes()).ok();
        }
        stream.write_all(format!("HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes()).ok()?;
        for chunk in body.as_bytes().chunks(7) {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).ok()?;
            stream.write_all(chunk).ok()?;
            stream.write_all(b"\r\n").ok()?;
        }
        stream.write_all(b"0\r\n\r\n").ok()
    }

    fn answer(&self, method: &str, path: &str, body: &[u8], etag: Option<&str>) -> Answer {
        let mut state = self.state.lock().unwrap();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let segments: Vec<String> = path
            .split('/')
            .skip(3)
            .map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8().unwrap().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (method, segments.as_slice()) {
            ("GET", ["unique"]) if etag == Some("\"v1\"") => return Answer::NotModified,
            ("GET", ["unique"]) => {
                let one = |(event, count): (&String, &u64)| serde_json::json!([{ "event": event, "count": count }]);
                let all: Vec<_> = state.counts.iter().map(one).collect();
                return Answer::Body(200, serde_json::json!({ "status": true, "response": all }).to_string());
            }
            ("GET", []) if query.contains("start_date=") => {
                let date = query.rsplit('=').next().unwrap();
                let one = |(event, count): (&String, &u64)| serde_json::json!([{ "date": date, "event": event, "count": count }]);
                let all: Vec<_> = state.counts.iter().map(one).collect();
                return Answer::Body(200, serde_json::json!({ "status": true, "response": all }).to_string());
            }
            ("GET", ["histogram", event, _]) => {
                return Answer::Body(if state.counts.contains_key(*event) { 200 } else { 404 }, "{}".to_owned());
            }
            _ => {}
        }
        let request = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some((at, pause)) = self.faults.freeze
            && request == at
        {
            // Under the lock, so that every connection stands still.
            std::thread::sleep(pause);
        }
        let every = |period: Option<u64>| period.is_some_and(|period| request.is_multiple_of(period));
        let times = match Some(request) {
            request if request == self.faults.lose => 0,
            request if request == self.faults.double => 2,
            _ => 1,
        };
        if every(self.faults.refuse_every) {
            return Answer::Body(503, r#"{"status":false,"counted":"no"}"#.to_owned());
        }
        let reset = every(self.faults.reset_every);
        if reset && request.is_multiple_of(2) {
            return Answer::HangUp;
        }
        let mut count = |event: &str, num: u64| *state.counts.entry(event.to_owned()).or_default() += num * times;
        let answer = match (method, segments.as_slice()) {
            ("POST", [event]) => {
                count(event, 1);
                Answer::Body(201, r#"{"status":true,"response":201}"#.to_owned())
            }
            ("POST", [event, num]) => {
                count(event, num.parse().unwrap());
                Answer::Body(200, r#"{"status":true,"response":204}"#.to_owned())
            }
            ("POST", []) => {
                let rows: Vec<serde_json::Value> = if body.first() == Some(&b'[') {
                    serde_json::from_slice(body).unwrap()
                } else {
                    serde_json::Deserializer::from_slice(body).into_iter().map(Result::unwrap).collect()
                };
                for row in &rows {
                    count(row["event"].as_str().unwrap(), row["count"].as_u64().unwrap_or(1));
                }
                let accounting =
                    serde_json::json!({ "accepted": rows.len(), "duplicates": 0, "rejected": 0, "errors": [] });
                Answer::Body(200, serde_json::json!({ "status": true, "response": accounting }).to_string())
            }
            _ => Answer::Body(404, "{}".to_owned()),
        };
        if reset { Answer::HangUp } else { answer }
    }
}

type Head = (usize, String, String, Vec<(String, String)>);

fn parse(buffer: &[u8]) -> Option<Head> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(len) = request.parse(buffer).unwrap() else { return None };
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    let headers = request.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect();
    Some((len, request.method?.to_owned(), request.path?.to_owned(), headers))
}

fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut bytes = [0; 4096];
    let read = stream.read(&mut bytes).ok().filter(|read| *read > 0)?;
    buffer.extend_from_slice(&bytes[..read]);
    Some(())
}
