//! PgBouncer in transaction pooling in front of a cluster: consecutive transactions of one client go over
//! different connections, and what one leaves behind there the next one finds.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::keeper::{self, Kept, wait_until};
use super::packages;
use super::postgres::Cluster;

/// Fewer than a node has sessions, so that they do share.
const POOL_SIZE: usize = 3;

pub struct PgBouncer {
    // The order matters: the pooler ends before its folder is removed.
    server: Mutex<Option<Kept>>,
    program: PathBuf,
    port: u16,
    folder: tempfile::TempDir,
    user: keeper::User,
}

impl PgBouncer {
    /// In front of the shared cluster, for tests that leave it running.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<PgBouncer> = OnceLock::new();
        SHARED.get_or_init(|| Self::before(Cluster::shared()))
    }

    /// One of its own, to be killed and told things. Started.
    pub fn before(cluster: &Cluster) -> Self {
        let program = program();
        let user = keeper::other_user_when_root();
        let folder = keeper::folder("event-tracker-pgbouncer", user);
        let pooler = Self { server: Mutex::new(None), program, port: keeper::free_port(), folder, user };
        pooler.lead_to(cluster, "*", "");
        std::fs::write(pooler.folder.path().join("users"), "\"postgres\" \"\"\n").unwrap();
        pooler.start();
        pooler
    }

    /// From its next start or RELOAD on these databases are those of the cluster; `parameters` such as
    /// `dbname=other`.
    pub fn lead_to(&self, cluster: &Cluster, databases: &str, parameters: &str) {
        // Versions before 1.21 have no such key, and refuse it.
        let prepared = if has_prepared_statements(&self.program) { "max_prepared_statements = 0" } else { "" };
        let (folder, own, cluster) = (self.folder.path().display(), self.port, cluster.port());
        let settings = format!(
            "[databases]\n\
             {databases} = host=127.0.0.1 port={cluster} {parameters}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {own}\n\
             unix_socket_dir =\n\
             auth_type = trust\n\
             auth_file = {folder}/users\n\
             admin_users = postgres\n\
             pool_mode = transaction\n\
             default_pool_size = {POOL_SIZE}\n\
             max_client_conn = 1000\n\
             server_round_robin = 1\n\
             server_idle_timeout = 2\n\
             server_login_retry = 1\n\
             {prepared}\n"
        );
        std::fs::write(self.folder.path().join("pgbouncer.ini"), settings).unwrap();
    }

    /// Starts it, on the same port each time, and waits until it takes connections.
    pub fn start(&self) {
        let mut server = self.server.lock().unwrap();
        assert!(server.is_none(), "the pooler runs already");
        let settings = self.folder.path().join("pgbouncer.ini");
        *server = Some(Kept::start(self.user, self.folder.path(), &self.program, &[settings.to_str().unwrap()]));
        drop(server);
        let takes_connections = || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        wait_until("PgBouncer takes connections", takes_connections);
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.server.lock().unwrap().take().expect("the pooler does not run").kill();
    }

    /// Through the pooler, to a database of its cluster.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A command of its console, such as `RECONNECT`. Gives the rows of the answer.
    pub async fn tell(&self, command: &str) -> Vec<Vec<String>> {
        let (client, connection) = tokio_postgres::connect(&self.url("pgbouncer"), NoTls).await.expect("its console");
        tokio::spawn(connection);
        let answer = client.simple_query(command).await.unwrap_or_else(|error| panic!("{command}: {error:?}"));
        let rows = answer.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| (0..row.len()).map(|index| row.get(index).unwrap_or_default().to_owned()).collect()).collect()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            server.kill();
        }
    }
}

fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| packages::needed(&["pgbouncer"], find_program)).clone()
}

fn find_program() -> Option<PathBuf> {
    // Not in the path of every user.
    let folders = packages::folders([PathBuf::from("/usr/sbin")]);
    folders.into_iter().map(|folder| folder.join("pgbouncer")).find(|path| path.is_file())
}

fn has_prepared_statements(program: &PathBuf) -> bool {
    let said = Command::new(program).arg("--version").output().expect("pgbouncer --version").stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    let version = said.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next(), numbers.next()) >= (Some(1), Some(21))
}
