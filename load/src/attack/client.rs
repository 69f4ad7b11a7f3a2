//! A connection that sends one request after another and waits for each answer.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::response::Response;

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    /// From this address of the machine, or any.
    pub(super) fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, input: Vec::new() })
    }

    /// The status of the answer.
    pub(super) fn post(&mut self, target: &str, content_type: &str, body: &str) -> io::Result<u16> {
        let kind = if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
        let length = body.len();
        self.exchange(&format!(
            "POST {target} HTTP/1.1\r\nHost: honest\r\n{kind}Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    pub(super) fn get(&mut self, target: &str) -> io::Result<u16> {
        self.exchange(&format!("GET {target} HTTP/1.1\r\nHost: honest\r\n\r\n"))
    }

    fn exchange(&mut self, request: &str) -> io::Result<u16> {
        self.stream.write_all(request.as_bytes())?;
        self.input.clear();
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.input.extend_from_slice(&chunk[..read]),
            }
            match Response::parse(&self.input) {
                Ok(Some(response)) => return Ok(response.status),
                Ok(None) => {}
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}
