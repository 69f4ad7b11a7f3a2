//! The signals that tell the process to stop.
//!
//! By default nearly every signal ends a process on the spot, and with it go counts that are only in
//! memory. So each of them that may be caught stops the service in order. Signals of a program's own
//! faults (SIGSEGV, SIGABRT and the like) are left as they are.

use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The first real-time signal that no C library keeps for itself, and the last one.
const REAL_TIME: std::ops::RangeInclusive<i32> = 35..=64;

/// Listens until it is dropped.
pub struct Signals {
    stop: Vec<(&'static str, Signal)>,
    /// Not ignored but listened to: that way, too, the process goes on and the write that went beyond
    /// the limit fails with EFBIG.
    _file_size: Option<Signal>,
}

impl Signals {
    /// From now on the process does not end by a signal, but for those that can't be caught. A signal
    /// that was ignored when the program was started stays so, as `nohup` wants it. SIGTERM is heard in
    /// any case: supervisors have nothing else.
    ///
    /// # Errors
    /// When the system does not let us listen.
    pub fn listen() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = ignored(&status);
        let is_ignored = |number: i32| ignored >> (number - 1) & 1 == 1;
        let mut stop = vec![("SIGTERM", signal(SignalKind::terminate())?)];
        for (name, kind) in stopping() {
            if !is_ignored(kind.as_raw_value()) {
                stop.push((name, signal(kind)?));
            }
        }
        // Not every system has as many.
        let real_time = REAL_TIME.filter(|number| !is_ignored(*number)).map(SignalKind::from_raw);
        stop.extend(real_time.filter_map(|kind| Some(("a real-time signal", signal(kind).ok()?))));
        Ok(Self { stop, _file_size: file_size().and_then(|kind| signal(kind).ok()) })
    }

    /// The name of the next signal to stop.
    pub async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|cx| {
            let mut signals = self.stop.iter_mut();
            let received = signals.find_map(|(name, signal)| signal.poll_recv(cx).is_ready().then_some(*name));
            received.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// All that stop the service besides SIGTERM.
fn stopping() -> Vec<(&'static str, SignalKind)> {
    let mut signals = vec![
        ("SIGINT", SignalKind::interrupt()),
        ("SIGHUP", SignalKind::hangup()),
        ("SIGQUIT", SignalKind::quit()),
        ("SIGUSR1", SignalKind::user_defined1()),
        ("SIGUSR2", SignalKind::user_defined2()),
        ("SIGALRM", SignalKind::alarm()),
    ];
    #[cfg(target_os = "linux")]
    {
        use rustix::process::Signal as Number;
        let more = [
            ("SIGVTALRM", Number::VTALARM),
            ("SIGPROF", Number::PROF),
            ("SIGIO", Number::IO),
            ("SIGPWR", Number::POWER),
            ("SIGSTKFLT", Number::STKFLT),
            ("SIGXCPU", Number::XCPU),
        ];
        signals.extend(more.map(|(name, number)| (name, SignalKind::from_raw(number.as_raw()))));
    }
    signals
}

/// The signal of a file that would grow beyond its limit.
fn file_size() -> Option<SignalKind> {
    #[cfg(target_os = "linux")]
    let kind = Some(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
    #[cfg(not(target_os = "linux"))]
    let kind = None;
    kind
}

/// The mask of ignored signals in `/proc/self/status`; none where there is no such file.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_found() {
        assert_eq!(ignored("Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"), 0x1001);
        assert_eq!(ignored(""), 0);
    }
}
