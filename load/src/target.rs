//! The service a run talks to, and plain blocking reads from it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::response::Response;

/// Bounds each step of a read outside the measured phases.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The command line or a file was wrong: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// More than these are a mistake: each has a thread of its own that sends.
const TARGETS_MAX: usize = 256;

/// The nodes that a run drives: one, or several of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// At least one.
    pub all: Vec<Target>,
    /// How long several may take to show what the others have counted.
    pub patience: Duration,
}

impl Targets {
    /// # Errors
    /// A [`Usage`] error if one can't be understood, or stands there twice.
    pub fn parse(urls: &[String], allow_remote: bool, patience: Duration) -> anyhow::Result<Self> {
        let mut all: Vec<Target> = Vec::with_capacity(urls.len());
        for url in urls {
            let target = Target::parse(url, allow_remote)?;
            if let Some(first) = all.iter().find(|other| other.address == target.address) {
                let (first, address) = (first.url(), target.address);
                return Err(
                    Usage(format!("target {url:?} is {address}, as {first} is; expected each node once")).into()
                );
            }
            all.push(target);
        }
        if all.is_empty() || all.len() > TARGETS_MAX {
            return Err(Usage(format!("{} targets; expected 1 to {TARGETS_MAX}", all.len())).into());
        }
        Ok(Self { all, patience })
    }

    /// One node, which nothing has to be waited for.
    #[must_use]
    pub fn one(target: &Target) -> Self {
        Self { all: vec![target.clone()], patience: Duration::ZERO }
    }

    /// All of them, for people.
    #[must_use]
    pub fn urls(&self) -> String {
        self.all.iter().map(Target::url).collect::<Vec<_>>().join(", ")
    }
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// Value of the `Host` header.
    pub host: String,
}

impl Target {
    /// Parses `http://HOST:PORT`; other machines than this one only if `allow_remote`.
    ///
    /// # Errors
    /// A [`Usage`] error that says what was expected.
    pub fn parse(url: &str, allow_remote: bool) -> anyhow::Result<Self> {
        let expected = || Usage(format!("target {url:?} is not understood; expected e.g. http://127.0.0.1:8000"));
        let host = url.strip_prefix("http://").ok_or_else(expected)?.trim_end_matches('/');
        if host.is_empty() || host.contains(['/', '@', '?', '#']) {
            return Err(expected().into());
        }
        let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let addresses = with_port.to_socket_addrs();
        let addresses: Vec<_> =
            addresses.map_err(|error| Usage(format!("target {url:?} can't be resolved: {error}")))?.collect();
        if !allow_remote && let Some(remote) = addresses.iter().find(|address| !address.ip().is_loopback()) {
            return Err(Usage(format!(
                "target {url:?} is {}, not this machine; load on other machines needs --allow-remote",
                remote.ip()
            ))
            .into());
        }
        let address = addresses.first().copied().ok_or_else(expected)?;
        Ok(Self { address, host: host.to_owned() })
    }

    #[must_use]
    pub fn local(port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { address, host: address.to_string() }
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        TcpStream::connect_timeout(&self.address, READ_TIMEOUT)
            .with_context(|| format!("can't connect to {} (is the service running?)", self.url()))
    }

    /// # Errors
    /// If nothing listens there.
    pub fn probe(&self) -> anyhow::Result<()> {
        self.connect().map(drop)
    }

    /// `GET path`, status and body.
    ///
    /// # Errors
    /// If the target can't be reached or answers something that is not HTTP.
    pub fn get(&self, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut stream = self.connect()?;
        let answer = (|| {
            stream.set_read_timeout(Some(READ_TIMEOUT))?;
            stream.set_write_timeout(Some(READ_TIMEOUT))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.host)?;
            let mut buffer = Vec::new();
            stream.read_to_end(&mut buffer)?;
            let Ok(Some(response)) = Response::parse(&buffer) else { bail!("the answer is not complete HTTP/1.1") };
            Ok((response.status, response.body(&buffer).into_owned()))
        })();
        answer.with_context(|| format!("GET {}{path}", self.url()))
    }
}
