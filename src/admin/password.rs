//! Passwords: which are strong enough, and Argon2id, off the async threads and few at a time.

use std::sync::Arc;

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

pub const BYTES_MIN: usize = 12;
pub const BYTES_MAX: usize = 1024;

/// As OWASP recommends for Argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashing at the same time. Each takes a whole core for tens of milliseconds, which counting must
/// not feel: on a small machine one core stays free.
const HASHES_MAX: usize = 2;

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

/// Hashes and verifies. One for the whole process: it bounds how much is done at once.
pub struct Passwords {
    permits: Arc<Semaphore>,
}

/// What the password of an unknown user is compared with, so that the answer takes as long: random
/// bytes, the hash of nothing known.
const DUMMY: &str = "$argon2id$v=19$m=19456,t=2,p=1$xmPbjkQG0IAN9AieDJS2fQ$bZCvBhK9qzk24OSO135ilRkW1zDnIGYz2IxmFwcPljo";

/// Hashing failed, for want of memory or randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the password could not be hashed")]
pub struct HashError;

impl Default for Passwords {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { permits: Arc::new(Semaphore::new((cores / 2).clamp(1, HASHES_MAX))) }
    }
}

impl Passwords {
    /// The PHC string to keep.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn hash(&self, password: String) -> Result<String, HashError> {
        self.aside(move || hash(password.as_bytes())).await?
    }

    /// Whether the password belongs to the hash; without one (an unknown user) it takes as long.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, HashError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| DUMMY.to_owned());
        let matches = self
            .aside(move || {
                // Longer ones are never kept; not hashing them bounds the work.
                password.len() <= BYTES_MAX
                    && Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok()
            })
            .await?;
        Ok(matches && known)
    }

    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, HashError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| HashError)?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        })
        .await
        .map_err(|_| HashError)
    }
}

/// Blocks for tens of milliseconds.
///
/// # Errors
/// See [`HashError`].
pub fn hash(password: &[u8]) -> Result<String, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| HashError)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(argon2.hash_password(password).map_err(|_| HashError)?.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
}
