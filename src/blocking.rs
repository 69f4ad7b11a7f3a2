//! Work that may wait for the disk, off the threads that serve.

use std::io;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does the work on a thread for such. A runtime of one thread, as commands and simulations have it, serves
/// nobody meanwhile and does it at once: so a simulation is the same each time.
///
/// # Errors
/// The work's, and when it panics.
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten()
}
