//! Passwords: which are strong enough, and Argon2id, one at a time on a thread that gives way to
//! counting.

use std::panic::{AssertUnwindSafe, catch_unwind};

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub const BYTES_MIN: usize = 12;
pub const BYTES_MAX: usize = 1024;

/// As OWASP recommends for Argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// From 0 to 4: more than 10^10 guesses are needed.
const STRENGTH_MIN: u8 = 3;
/// The estimate takes time that grows with the square of the length; what follows can only add.
const ESTIMATED_CHARS_MAX: usize = 100;

/// Why a password is refused; a sentence for its owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    #[error("The password needs at least {BYTES_MIN} characters.")]
    TooShort,
    #[error("The password has more than {BYTES_MAX} bytes.")]
    TooLong,
    #[error("The password is too easy to guess: {0}")]
    Guessable(String),
}

/// # Errors
/// See [`WeakPassword`].
pub fn check_strength(user: &str, password: &str) -> Result<(), WeakPassword> {
    if password.len() < BYTES_MIN {
        return Err(WeakPassword::TooShort);
    }
    if password.len() > BYTES_MAX {
        return Err(WeakPassword::TooLong);
    }
    let estimated: String = password.chars().take(ESTIMATED_CHARS_MAX).collect();
    let estimate = zxcvbn::zxcvbn(&estimated, &[user, "event-tracker", "event", "tracker", "admin"]);
    if u8::from(estimate.score()) >= STRENGTH_MIN {
        return Ok(());
    }
    let why = estimate.feedback().and_then(|feedback| feedback.warning()).map(|warning| warning.to_string());
    Err(WeakPassword::Guessable(why.unwrap_or_else(|| "add more words that do not belong together.".into())))
}

/// What Argon2 fills. Kept from one hash to the next while more wait: to take it anew from the system
/// would cost as much as a third of a hash, and disturb the threads that count.
type Memory = Vec<Block>;

type Task = Box<dyn FnOnce(&mut Memory) + Send>;

/// Hashes and verifies, for the whole process on one thread: each hash takes a whole core for more
/// than ten milliseconds and 19 MiB, which counting must not feel.
///
/// At most [`WAITING_MAX`] wait, served in the order they came; one whose client has gone is not hashed.
pub struct Passwords {
    tasks: mpsc::Sender<Task>,
    /// For who waits.
    places: Semaphore,
}

/// The last of them waits some seconds.
const WAITING_MAX: usize = 64;

/// What the password of an unknown user is compared with, so that the answer takes as long: random
/// bytes, the hash of nothing known.
const DUMMY: &str = "$argon2id$v=19$m=19456,t=2,p=1$xmPbjkQG0IAN9AieDJS2fQ$bZCvBhK9qzk24OSO135ilRkW1zDnIGYz2IxmFwcPljo";

/// Why there is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// For want of memory or randomness.
    #[error("the password could not be hashed")]
    Failed,
    #[error("too many passwords wait to be hashed")]
    Crowded,
}

impl Default for Passwords {
    fn default() -> Self {
        let (tasks, waiting) = mpsc::channel(1);
        if let Err(error) = std::thread::Builder::new().name("passwords".into()).spawn(|| run(waiting)) {
            tracing::error!(%error, "There is no thread to hash passwords on: nobody can sign in");
        }
        Self { tasks, places: Semaphore::new(WAITING_MAX) }
    }
}

fn run(mut tasks: mpsc::Receiver<Task>) {
    // With Linux a thread has a priority of its own, elsewhere only the process has one. It is lowered
    // to the least: when all cores are busy, logins wait and counting goes on.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::warn!(%error, "The priority of hashing passwords could not be lowered");
    }
    let mut memory = Memory::new();
    loop {
        let task = match tasks.try_recv() {
            Err(TryRecvError::Empty) => {
                memory = Memory::new();
                tasks.blocking_recv()
            }
            task => task.ok(),
        };
        let Some(task) = task else { return };
        // A panic is the end of one task, whose answer is dropped with it, and not of the thread.
        let _ = catch_unwind(AssertUnwindSafe(|| task(&mut memory)));
    }
}

impl Passwords {
    /// The PHC string to keep.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn hash(&self, password: String) -> Result<String, HashError> {
        self.aside(move |_| hash(password.as_bytes())).await?
    }

    /// Whether the password belongs to the hash; without one (an unknown user) it takes as long.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, HashError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| DUMMY.to_owned());
        let matches = self
            .aside(move |memory| {
                // Longer ones are never kept; not hashing them bounds the work.
                password.len() <= BYTES_MAX && matches(password.as_bytes(), &hash, memory).unwrap_or(false)
            })
            .await?;
        Ok(matches && known)
    }

    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let _place = self.places.try_acquire().map_err(|_| HashError::Crowded)?;
        let (answer, answered) = oneshot::channel();
        let task = move |memory: &mut Memory| {
            if !answer.is_closed() {
                let _ = answer.send(work(memory));
            }
        };
        self.tasks.send(Box::new(task)).await.map_err(|_| HashError::Failed)?;
        answered.await.map_err(|_| HashError::Failed)
    }
}

/// Whether the password belongs to the hash; `None` if that is none. Blocks for tens of milliseconds.
fn matches(password: &[u8], hash: &str, memory: &mut Memory) -> Option<bool> {
    let hash = PasswordHash::new(hash).ok()?;
    let version = hash.version.map_or(Some(Version::default()), |version| version.try_into().ok())?;
    let params = Params::try_from(&hash).ok()?;
    memory.resize(memory.len().max(params.block_count()), Block::new());
    let argon2 = Argon2::new(hash.algorithm.as_str().try_into().ok()?, version, params);
    let mut found = vec![0; hash.hash?.len()];
    argon2.hash_password_into_with_memory(password, &hash.salt?, &mut found, &mut memory[..]).ok()?;
    // An `Output` compares in constant time.
    Some(Output::new(&found).ok()? == hash.hash?)
}

/// Blocks for tens of milliseconds.
///
/// # Errors
/// See [`HashError`].
pub fn hash(password: &[u8]) -> Result<String, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| HashError::Failed)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(argon2.hash_password(password).map_err(|_| HashError::Failed)?.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn weak_passwords_are_refused_with_the_reason() {
        assert_eq!(check_strength("ann", "short"), Err(WeakPassword::TooShort));
        assert_eq!(check_strength("ann", &"x".repeat(1025)), Err(WeakPassword::TooLong));
        for weak in ["passwordpassword", "aaaaaaaaaaaaaaaa", "123456789012345", "annannannann", "event-tracker"] {
            assert!(matches!(check_strength("ann", weak), Err(WeakPassword::Guessable(_))), "{weak}");
        }
        assert_eq!(check_strength("ann", "quiet-lamp-9-orchard"), Ok(()));
        assert_eq!(check_strength("ann", "красный забор у реки"), Ok(()));
    }

    #[test]
    fn an_unknown_user_costs_what_a_known_one_does() {
        let parameters = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        let lengths = |hash: &str| hash.split('$').map(str::len).collect::<Vec<_>>();
        let known = hash(b"quiet-lamp-9-orchard").unwrap();
        assert_eq!((parameters(&known), lengths(&known)), (parameters(DUMMY), lengths(DUMMY)));
    }

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = Passwords::default();
        let hash = passwords.hash("quiet-lamp-9-orchard".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash("quiet-lamp-9-orchard".into()).await.unwrap(), "salted");
        assert!(passwords.verify("quiet-lamp-9-orchard".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("quiet-lamp-9-orchar".into(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("quiet-lamp-9-orchard".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn hashes_are_made_one_at_a_time_in_the_order_they_were_asked_for() {
        let passwords = Passwords::default();
        let (running, order) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let (running, order) = (Arc::new(running), Arc::new(order));
        let tasks = (0..WAITING_MAX).map(|number| {
            let (running, order) = (Arc::clone(&running), Arc::clone(&order));
            passwords.aside(move |_| {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                order.lock().push(number);
                running.fetch_sub(1, Ordering::SeqCst);
            })
        });
        assert!(futures_util::future::join_all(tasks).await.iter().all(Result::is_ok));
        assert_eq!(*order.lock(), (0..WAITING_MAX).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_panic_fails_one_attempt_and_no_other() {
        let passwords = Passwords::default();
        assert_eq!(passwords.aside(|_| panic!("as a test")).await, Err::<(), _>(HashError::Failed));
        assert_eq!(passwords.aside(|_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn whoever_goes_away_is_not_hashed_and_holds_up_nobody() {
        let passwords = Passwords::default();
        let (begin, begun) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let ran = Arc::new(AtomicUsize::new(0));
        {
            let first = passwords.aside(move |_| {
                begin.send(()).unwrap();
                wait.recv()
            });
            let gone = (1..WAITING_MAX).map(|_| {
                let ran = Arc::clone(&ran);
                passwords.aside(move |_| ran.fetch_add(1, Ordering::SeqCst))
            });
            // The first keeps the thread, the others wait behind it; then all of them go away.
            let mut all = (std::pin::pin!(first), std::pin::pin!(futures_util::future::join_all(gone)));
            assert!(futures_util::poll!(&mut all.0).is_pending());
            begun.recv().unwrap();
            assert!(futures_util::poll!(&mut all.1).is_pending());
            assert_eq!(passwords.aside(|_| 7).await, Err(HashError::Crowded), "no more wait, and they hear it at once");
        }
        go.send(()).unwrap();
        assert_eq!(passwords.aside(|_| 7).await, Ok(7));
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    }
}
