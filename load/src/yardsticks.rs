//! Starting and ending the servers of a comparison. Each gets a free port on 127.0.0.1, a folder of
//! its own, and a bound on its life that holds even if this program is killed.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::scenario::AckLevel;
use crate::target::Target;

const START_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const NGINX_MODULES: &str = "/usr/lib/nginx/modules";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Yardstick {
    /// The service, at one acknowledgement level.
    Service(AckLevel),
    /// hyper with a static answer: [`crate::baseline`].
    Bare,
    NginxLua,
    Redis {
        /// Append-only file, synced before each answer.
        always: bool,
    },
}

impl Yardstick {
    pub const ALL: [Self; 8] = [
        Self::Bare,
        Self::Service(AckLevel::Memory),
        Self::Service(AckLevel::Journal),
        Self::Service(AckLevel::Disk),
        Self::Service(AckLevel::Store),
        Self::NginxLua,
        Self::Redis { always: false },
        Self::Redis { always: true },
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service(AckLevel::Memory) => "event-tracker, memory",
            Self::Service(AckLevel::Journal) => "event-tracker, journal",
            Self::Service(AckLevel::Disk) => "event-tracker, disk",
            Self::Service(AckLevel::Store) => "event-tracker, store",
            Self::Bare => "bare hyper, static answer",
            Self::NginxLua => "nginx, Lua shared dict",
            Self::Redis { always: false } => "Redis INCR",
            Self::Redis { always: true } => "Redis INCR, fsync always",
        }
    }

    #[must_use]
    pub fn speaks_redis(self) -> bool {
        matches!(self, Self::Redis { .. })
    }

    /// The level that each request asks for, where it can't be the service's default.
    #[must_use]
    pub fn asks_for(self) -> Option<AckLevel> {
        match self {
            Self::Service(AckLevel::Store) => Some(AckLevel::Store),
            _ => None,
        }
    }

    /// The program's name and version; `None` if it is not installed.
    #[must_use]
    pub fn version(self, service: &Path) -> Option<String> {
        let (program, argument) = match self {
            Self::Service(_) => (service.to_owned(), "--version"),
            Self::Bare => return Some(concat!("event-load ", env!("CARGO_PKG_VERSION")).to_owned()),
            Self::NginxLua if !Path::new(NGINX_MODULES).join("ngx_http_lua_module.so").exists() => return None,
            Self::NginxLua => (PathBuf::from("nginx"), "-v"),
            Self::Redis { .. } => (PathBuf::from("redis-server"), "--version"),
        };
        let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text).lines().next()?.to_owned();
        let line = line.replace("nginx version: nginx/", "nginx ").replace("Redis server v=", "Redis ");
        line.split(" sha=").next().map(str::to_owned)
    }

    fn command(self, service: &Path, port: u16, folder: &Path, lifetime: Duration) -> anyhow::Result<Command> {
        // `timeout` passes SIGTERM on and puts the server into a process group of its own, out of reach of Ctrl-C.
        let mut command = Command::new("timeout");
        command.arg("--kill-after=5").arg(lifetime.as_secs().to_string());
        match self {
            Self::Service(ack) => {
                let data = folder.join("data");
                command.arg(service).args(["serve", "--listen"]).arg(format!("127.0.0.1:{port}"));
                command.arg("--data-dir").arg(data).current_dir(folder);
                if self.asks_for().is_none() {
                    command.env("EVENT_TRACKER__JOURNAL__ACK", ack.name());
                }
                command.env_remove("DATABASE_URL").env_remove("PORT");
            }
            Self::Bare => {
                command.arg(std::env::current_exe()?).arg("baseline-server").args(["--port", &port.to_string()]);
            }
            Self::NginxLua => {
                let file = folder.join("nginx.conf");
                std::fs::write(&file, nginx_conf(port, folder))?;
                command.arg("nginx").arg("-p").arg(folder).arg("-c").arg(file).args(["-e", "stderr"]);
            }
            Self::Redis { always } => {
                command.arg("redis-server").args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
                command.args(["--save", "", "--dir"]).arg(folder);
                command.args(["--appendonly", if always { "yes" } else { "no" }, "--appendfsync", "always"]);
                // A rewrite of the file in the middle of a round would measure something else.
                command.args(["--auto-aof-rewrite-percentage", "0"]);
            }
        }
        Ok(command)
    }
}

/// As many workers as processors; a counter in shared memory, the answer the same bytes as the service's.
fn nginx_conf(port: u16, folder: &Path) -> String {
    let folder = folder.display();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {folder}/{kind};"));
    format!(
        r#"load_module {NGINX_MODULES}/ndk_http_module.so;
load_module {NGINX_MODULES}/ngx_http_lua_module.so;
daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  {}
  lua_shared_dict counts 64m;
  server {{
    listen 127.0.0.1:{port} reuseport;
    location /api/events/ {{
      default_type application/json;
      content_by_lua_block {{
        local hour = math.floor(ngx.time() / 3600)
        ngx.shared.counts:incr(string.sub(ngx.var.uri, 13) .. "@" .. hour, 1, 0)
        ngx.status = 201
        ngx.header["Content-Length"] = 30
        ngx.print('{{"status":true,"response":201}}')
      }}
    }}
  }}
}}
"#,
        temporary.join(" ")
    )
}

/// A server that runs; ended when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub target: Target,
    _folder: TempDir,
}

impl Server {
    /// Starts a yardstick below `folder` and waits until it accepts connections. It ends after
    /// `lifetime` at the latest.
    ///
    /// # Errors
    /// If it can't be started, ends, or does not listen in time; with the end of what it said.
    pub fn start(yardstick: Yardstick, service: &Path, folder: &Path, lifetime: Duration) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let folder = tempfile::Builder::new().prefix("event-load-").tempdir_in(std::fs::canonicalize(folder)?)?;
        let port = free_port()?;
        let log_path = folder.path().join("log");
        let log = File::create(&log_path)?;
        let mut command = yardstick.command(service, port, folder.path(), lifetime)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("can't start {}", yardstick.name()))?;
        let mut server = Self { child, target: Target::local(port), _folder: folder };
        let began = Instant::now();
        while TcpStream::connect(server.target.address).is_err() {
            let ended = server.child.try_wait()?;
            if ended.is_some() || began.elapsed() > START_TIMEOUT {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                let said = log.lines().last().unwrap_or("nothing");
                bail!("{} did not start to listen; it said: {said}", yardstick.name());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < STOP_TIMEOUT {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
