//! One answer of the program, and a client that sends a target byte for byte: others tidy it first.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub async fn of(response: reqwest::Response) -> reqwest::Result<Self> {
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        Ok(Self { status: response.status().as_u16(), headers, body: response.bytes().await?.to_vec() })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header's value; empty without it.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Checks status and exact body.
    #[track_caller]
    pub fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.text()), (status, body));
        assert_eq!(self.header("content-type"), "application/json");
    }

    /// What a failed POST says of its increments: `no` or `unknown`.
    #[track_caller]
    pub fn counted(&self) -> Option<String> {
        let counted = self.json().get("counted")?.as_str().unwrap().to_owned();
        assert!(["no", "unknown"].contains(&counted.as_str()), "{counted}");
        Some(counted)
    }

    /// Checks the envelope of a failure, and gives `internal` and `external`.
    #[track_caller]
    pub fn fails(&self, status: u16) -> (String, String) {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), "application/json");
        let body = self.json();
        assert_eq!(body["status"], false);
        let number = if status == 400 { Value::Null } else { status.into() };
        assert_eq!(body["response"], number, "{body}");
        let keys: BTreeSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
        // A refused batch says more.
        assert!(keys.is_superset(&["error", "response", "status"].into()), "{body}");
        let text = |key: &str| body["error"][key].as_str().unwrap_or_else(|| panic!("{key} in {body}")).to_owned();
        let (internal, external) = (text("internal"), text("external"));
        assert!(internal.contains(": "), "a code and a detail: {internal}");
        if let Some(counted) = self.counted() {
            assert!(internal.ends_with(&format!("; counted: {counted}")), "{body}");
        }
        assert!(external.ends_with('.') && external.len() > 10, "a sentence for a person: {external}");
        for secret in ["select", "insert", "/tmp", "127.0.0.1", "postgres:"] {
            assert!(!internal.to_lowercase().contains(secret), "internal tells {secret}: {internal}");
        }
        (internal, external)
    }
}

/// Sends the target as it is, on a connection of its own.
pub async fn raw(address: &str, method: &str, target: &[u8], headers: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = [method.as_bytes(), b" ", target, b" HTTP/1.1\r\nhost: test\r\nconnection: close\r\n"].concat();
    for (name, value) in headers {
        request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: bytes[end + 4..].to_vec() }
}
