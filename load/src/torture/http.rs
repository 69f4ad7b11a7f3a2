//! A connection of a writer or a reader, kept open from request to request.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::response::Response;

/// Longer than a node waits for the store when it is asked to.
const ANSWER_MAX: Duration = Duration::from_secs(6);
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Where a process listens, and which one of its data folder it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    pub socket: SocketAddr,
    pub life: u64,
}

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

#[derive(Default)]
pub struct Client {
    stream: Option<(Address, TcpStream)>,
    input: Vec<u8>,
}

impl Client {
    /// Whether there is a connection to that process. Until then nothing is sent to it.
    pub fn connect(&mut self, to: Address) -> bool {
        if self.stream.as_ref().is_some_and(|(address, _)| *address == to) {
            return true;
        }
        self.stream = None;
        let Ok(stream) = TcpStream::connect_timeout(&to.socket, CONNECT_MAX) else { return false };
        let is_set = stream.set_nodelay(true).is_ok()
            && stream.set_read_timeout(Some(ANSWER_MAX)).is_ok()
            && stream.set_write_timeout(Some(ANSWER_MAX)).is_ok();
        self.stream = is_set.then_some((to, stream));
        is_set
    }

    /// Sends one request and waits for its answer. `None`: there is none, and never will be.
    pub fn exchange(&mut self, request: &[u8]) -> Option<Answer> {
        let answer = self.try_exchange(request);
        if answer.is_none() {
            self.stream = None;
        }
        answer
    }

    fn try_exchange(&mut self, request: &[u8]) -> Option<Answer> {
        let (_, stream) = self.stream.as_mut()?;
        stream.write_all(request).ok()?;
        self.input.clear();
        let mut chunk = [0; 16 * 1024];
        let response = loop {
            let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
            self.input.extend_from_slice(&chunk[..read]);
            if let Some(response) = Response::parse(&self.input).ok()? {
                break response;
            }
        };
        let answer = Answer { status: response.status, body: response.body(&self.input).into_owned() };
        if response.close {
            self.stream = None;
        }
        Some(answer)
    }
}

/// A request without a body.
#[must_use]
pub fn request(method: &str, target: &str) -> Vec<u8> {
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    format!("{method} {target} HTTP/1.1\r\nHost: torture\r\n{length}\r\n").into_bytes()
}

/// A POST of JSON.
#[must_use]
pub fn post_json(target: &str, body: &str) -> Vec<u8> {
    let head = "Host: torture\r\nContent-Type: application/json";
    format!("POST {target} HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
