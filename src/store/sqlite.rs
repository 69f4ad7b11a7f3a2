//! SQLite: the library compiled in, one connection that writes and checkpoints, one that reads what is small, and
//! some that read lists, each on a thread of its own: so a big commit delays neither reads nor the async threads, and
//! a long list no small read.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::trimming::Trimming;
use super::{
    Books, Commit, CommitRequest, Folded, HourlyQuery, LedgerPosition, NodeReport, NodeSeen, Since, Snapshot, Store,
    StoreError,
};
use crate::domain::{BatchId, Delta, EventTotal, HourRange, HourlyCount, Sum, SumBy, WriterId};
use file::{DataFile, Role};
use worker::{Slot, Worker};

mod accounts;
mod admin;
mod change;
mod commit;
mod connection;
mod file;
mod log;
mod nodes;
mod statements;
mod worker;

/// Tells the store's time in place of SQLite, which asks its machine.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// So that reading goes on while some are used.
const TOTALS_UNDER_WAY: usize = 1_000;

/// Connections that read lists. Each is made when it is first needed.
const LISTERS: usize = 4;

/// How long the read of a list may take.
const READ_PATIENCE: Duration = Duration::from_secs(30);

pub struct SqliteStore {
    file: Arc<DataFile>,
    /// `None`: opened for an audit, commits are refused.
    writer: Option<Worker>,
    reader: Worker,
    listers: Vec<Worker>,
    read_patience: Duration,
    set_aside: AtomicU64,
    reported: Arc<nodes::Reported>,
    clock: Option<Clock>,
    trimming: Trimming,
}

impl SqliteStore {
    /// Opens the file. One that is missing is made, with its folder and its schema, at the first use: only
    /// then it is known whether a database is expected in its place. Blocks on the disk.
    ///
    /// # Errors
    /// When the file can't be opened, belongs to another program or to a newer version of this one.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = Arc::new(DataFile::at(path));
        let (mut writer, mut reader) = (Slot::new(&file, Role::Write), Slot::new(&file, Role::Read));
        if path.exists() {
            // The writer comes first: it brings the schema up to date that the reader checks.
            writer.connection()?;
            reader.connection()?;
        }
        Ok(Self {
            writer: Some(Worker::start("sqlite-write", writer)?),
            reader: Worker::start("sqlite-read", reader)?,
            listers: listers(LISTERS, &file, Role::Read)?,
            read_patience: READ_PATIENCE,
            file,
            set_aside: AtomicU64::new(0),
            reported: Arc::default(),
            clock: None,
            trimming: Trimming::default(),
        })
    }

    /// Lets `clock` decide what can't be undone, in place of the machine's.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Lets the read of a list take so long, in place of 30 s.
    #[must_use]
    pub fn with_read_patience(self, patience: Duration) -> Self {
        Self { read_patience: patience, ..self }
    }

    /// Keeps entries of the log for so long, in place of the default.
    #[must_use]
    pub fn with_log_kept(self, keep: Duration) -> Self {
        Self { trimming: Trimming::new(keep), ..self }
    }

    /// Opens an existing file for reading only, also while the service uses it. Blocks on the disk.
    ///
    /// # Errors
    /// As [`SqliteStore::open`], and when there is no such file.
    pub fn open_for_audit(path: &Path) -> Result<Self, StoreError> {
        let file = Arc::new(DataFile::at(path));
        let mut reader = Slot::new(&file, Role::Audit);
        reader.connection()?;
        let reader = Worker::start("sqlite-read", reader)?;
        Ok(Self {
            writer: None,
            reader,
            listers: listers(1, &file, Role::Audit)?,
            read_patience: READ_PATIENCE,
            file,
            set_aside: AtomicU64::new(0),
            reported: Arc::default(),
            clock: None,
            trimming: Trimming::default(),
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(writer) = &self.writer else {
            return Err(StoreError::Rejected("the store was opened for reading only".into()));
        };
        let outcome = writer.run(work).await;
        self.look_after_file(&outcome);
        outcome
    }

    /// Of what is small, which waits for no list.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let outcome = self.reader.read(Some(self.read_patience), work).await;
        self.look_after_file(&outcome);
        outcome
    }

    async fn list<T: Send + 'static>(
        &self,
        patience: Option<Duration>,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let idlest = self.listers.iter().min_by_key(|lister| lister.load()).unwrap_or(&self.reader);
        let outcome = idlest.read(patience, work).await;
        self.look_after_file(&outcome);
        outcome
    }

    /// Every connection to a file that is not there any more has to be closed before a new one is made.
    fn look_after_file<T>(&self, outcome: &Result<T, StoreError>) {
        if outcome.is_err() && self.file.has_moved() {
            let workers = self.writer.iter().chain([&self.reader]).chain(&self.listers);
            workers.for_each(Worker::look_after_file);
        }
    }
}

fn listers(number: usize, file: &Arc<DataFile>, role: Role) -> Result<Vec<Worker>, StoreError> {
    (0..number).map(|_| Worker::start("sqlite-list", Slot::new(file, role))).collect()
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, request: CommitRequest) -> Result<Commit, StoreError> {
        let (outcome, set_aside) = self.write(move |connection| commit::commit(connection, &request)).await?;
        self.set_aside.fetch_add(set_aside as u64, Ordering::Relaxed);
        Ok(outcome)
    }

    /// Its commits fold at once. Old entries of the log are deleted.
    async fn fold(&self) -> Result<Option<Folded>, StoreError> {
        if self.writer.is_some() && self.trimming.is_due() {
            let keep = self.trimming.keep;
            self.write(move |connection| log::trim(connection, keep)).await?;
        }
        Ok(Some(Folded::default()))
    }

    async fn fold_after(&self, _rest: Duration) -> Result<Option<Folded>, StoreError> {
        self.fold().await
    }

    fn expect(&self, identity: Option<String>) {
        self.file.expect(identity);
    }

    async fn hourly(
        &self,
        query: HourlyQuery,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<HourlyCount>>, StoreError> {
        self.list(Some(self.read_patience), move |connection| {
            let snapshot = connection.transaction()?;
            let value = statements::hourly(&snapshot, &query)?;
            Ok(Snapshot { value, position: statements::position(&snapshot, &writers)? })
        })
        .await
    }

    async fn totals(&self, writers: Vec<WriterId>) -> Result<Snapshot<Vec<EventTotal>>, StoreError> {
        self.list(Some(self.read_patience), move |connection| {
            let snapshot = connection.transaction()?;
            let value = statements::totals(&snapshot)?;
            Ok(Snapshot { value, position: statements::position(&snapshot, &writers)? })
        })
        .await
    }

    async fn each_total(
        &self,
        writers: Vec<WriterId>,
        on_total: &mut (dyn FnMut(EventTotal) + Send),
    ) -> Result<LedgerPosition, StoreError> {
        let (sender, mut totals) = mpsc::channel(TOTALS_UNDER_WAY);
        let reading = self.list(None, move |connection| {
            let snapshot = connection.transaction()?;
            let position = statements::position(&snapshot, &writers)?;
            statements::each_total(&snapshot, |total| sender.blocking_send(total).is_ok())?;
            Ok(position)
        });
        let taking = async {
            while let Some(total) = totals.recv().await {
                on_total(total);
            }
        };
        tokio::join!(reading, taking).0
    }

    async fn sums(
        &self,
        range: HourRange,
        by: SumBy,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<Sum>>, StoreError> {
        self.list(Some(self.read_patience), move |connection| {
            let snapshot = connection.transaction()?;
            let value = statements::sums(&snapshot, range, by)?;
            Ok(Snapshot { value, position: statements::position(&snapshot, &writers)? })
        })
        .await
    }

    async fn position(&self, writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError> {
        self.read(move |connection| statements::position(&connection.transaction()?, &writers)).await
    }

    async fn since(&self, known: LedgerPosition, writers: Vec<WriterId>) -> Result<Since, StoreError> {
        self.read(move |connection| {
            let snapshot = connection.transaction()?;
            let position = statements::position(&snapshot, &writers)?;
            let deltas = log::since(&snapshot, &known)?.and_then(|deltas| known.leads_to(&position, deltas));
            Ok(Since { position, deltas })
        })
        .await
    }

    async fn delta(&self, id: BatchId) -> Result<Option<Delta>, StoreError> {
        self.read(move |connection| log::delta(connection, id)).await
    }

    async fn audit(&self) -> Result<Books, StoreError> {
        self.list(None, |connection| statements::books(&connection.transaction()?)).await
    }

    async fn note_node(&self, report: NodeReport) -> Result<(), StoreError> {
        let (reported, clock) = (Arc::clone(&self.reported), self.clock.clone());
        self.read(move |connection| {
            reported.note(report, change::now(connection, clock.as_ref())?);
            Ok(())
        })
        .await
    }

    async fn forget_node(&self, writer: WriterId) -> Result<(), StoreError> {
        self.reported.forget(writer);
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        let (reported, clock) = (Arc::clone(&self.reported), self.clock.clone());
        self.read(move |connection| Ok(reported.live(change::now(connection, clock.as_ref())?))).await
    }

    async fn identity(&self) -> Result<String, StoreError> {
        self.read(|connection| statements::identity(connection)).await
    }

    async fn close(&self) {
        // The readers go first, since an open snapshot would keep the WAL from being emptied.
        for reader in self.listers.iter().chain([&self.reader]) {
            reader.stop(|_| Ok(())).await;
        }
        if let Some(writer) = &self.writer {
            writer.stop(|connection| connection::checkpoint(connection)).await;
        }
    }

    fn session_failure(&self) -> Option<StoreError> {
        let closed = self.reader.is_stopped().then(|| StoreError::Unavailable("the store is closed".into()));
        closed.or_else(|| self.file.failure())
    }

    fn set_aside(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }

    fn read_connections(&self) -> usize {
        self.listers.len()
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn label(&self) -> String {
        format!("SQLite at {}", self.file.path().display())
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let may_pass_by_itself = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::FileLockingProtocolFailed
                    | ErrorCode::OutOfMemory
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::DiskFull
                    | ErrorCode::CannotOpen
            )
        );
        // The bare message: with the statement it would repeat SQL.
        let text = match error {
            rusqlite::Error::SqliteFailure(code, message) => message.unwrap_or_else(|| code.to_string()),
            other => other.to_string(),
        };
        if may_pass_by_itself { Self::Unavailable(text) } else { Self::Rejected(text) }
    }
}
