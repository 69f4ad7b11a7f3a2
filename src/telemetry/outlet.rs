//! Lines on their way to standard output or standard error.
//!
//! A full disk, a reader that is gone or one that does not read must not hold up anything else. So a
//! line goes into a queue with bounds, and one thread writes the queue. A line that finds the queue
//! full is dropped and counted, and so is a line that can't be written.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Some seconds of a log that is as busy as it gets.
const LINES_MAX: usize = 10_000;
const BYTES_MAX: usize = 2 << 20;
/// How long a descriptor that does not wait (`O_NONBLOCK`) is left alone when it takes no more.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// One standard stream of the process, with the queue and the thread that are before it. It lives as
/// long as the process.
pub(super) struct Outlet {
    queue: Mutex<Queue>,
    /// There is a line to write.
    filled: Condvar,
    /// All lines were written or dropped.
    emptied: Condvar,
    started: Once,
    dropped: AtomicU64,
    /// Makes the line that tells how many were dropped.
    notice: fn(u64) -> String,
    /// Hears of the first failure.
    on_failure: fn(&io::Error),
}

struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Dropped, and not told yet.
    untold: u64,
    /// A line is out of the queue and not written yet.
    is_writing: bool,
    has_failed: bool,
}

impl Outlet {
    pub(super) const fn new(notice: fn(u64) -> String, on_failure: fn(&io::Error)) -> Self {
        Self {
            queue: Mutex::new(Queue {
                lines: VecDeque::new(),
                bytes: 0,
                untold: 0,
                is_writing: false,
                has_failed: false,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            started: Once::new(),
            dropped: AtomicU64::new(0),
            notice,
            on_failure,
        }
    }

    /// Takes one line, with its end, and never waits. The first call starts the thread, which writes to
    /// what `open` gives.
    pub(super) fn say(&'static self, line: Vec<u8>, open: fn() -> Box<dyn Write + Send>) {
        self.started.call_once(|| {
            // Without a thread the queue fills up, and lines are dropped like those of a blocked stream.
            let _ = std::thread::Builder::new().name("output".into()).spawn(move || self.write_all(open()));
        });
        let mut queue = self.queue.lock();
        if queue.lines.len() >= LINES_MAX || queue.bytes + line.len() > BYTES_MAX {
            self.drop_one(&mut queue);
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line);
        drop(queue);
        self.filled.notify_one();
    }

    /// How many lines were never written.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines are written, but not longer than `patience`.
    pub(super) fn finish(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut queue = self.queue.lock();
        while queue.is_writing || !queue.lines.is_empty() {
            if self.emptied.wait_until(&mut queue, deadline).timed_out() {
                return;
            }
        }
    }

    fn drop_one(&self, queue: &mut Queue) {
        queue.untold += 1;
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// The life of the thread.
    fn write_all(&self, mut to: Box<dyn Write + Send>) {
        loop {
            let line = self.next_line();
            let written = write(&mut to, &line);
            self.note(written.as_ref().err());
            if written.is_ok() {
                self.tell_dropped(&mut to);
            }
            let mut queue = self.queue.lock();
            queue.is_writing = false;
            if queue.lines.is_empty() {
                self.emptied.notify_all();
            }
        }
    }

    fn next_line(&self) -> Vec<u8> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.bytes -= line.len();
                queue.is_writing = true;
                return line;
            }
            self.filled.wait(&mut queue);
        }
    }

    fn note(&self, failure: Option<&io::Error>) {
        let Some(error) = failure else { return };
        let mut queue = self.queue.lock();
        self.drop_one(&mut queue);
        let is_first = !std::mem::replace(&mut queue.has_failed, true);
        drop(queue);
        if is_first {
            (self.on_failure)(error);
        }
    }

    fn tell_dropped(&self, to: &mut impl Write) {
        let untold = std::mem::take(&mut self.queue.lock().untold);
        if untold > 0 && write(to, (self.notice)(untold).as_bytes()).is_err() {
            self.queue.lock().untold += untold;
        }
    }
}

/// Like `write_all`, also for a descriptor that does not wait.
fn write(to: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => rest = &rest[length..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::LazyLock;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A pipe of which each test reads, or not.
    type Pipe = Mutex<Option<io::PipeWriter>>;

    fn outlet() -> &'static Outlet {
        Box::leak(Box::new(Outlet::new(|dropped| format!("{dropped} dropped\n"), |_| {})))
    }

    #[test]
    fn a_stream_that_nobody_reads_takes_no_more_than_its_bounds_and_tells_later_what_was_dropped() {
        static PIPE: Pipe = Mutex::new(None);
        let (mut reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[b'.'; 65_536]).unwrap();
        *PIPE.lock() = Some(writer);
        let outlet = outlet();
        let open = || -> Box<dyn Write + Send> { Box::new(PIPE.lock().take().unwrap()) };
        outlet.say(b"first\n".to_vec(), open);
        // From now on the thread holds the first line.
        while !outlet.queue.lock().is_writing {
            std::thread::yield_now();
        }
        for _ in 0..LINES_MAX + 5 {
            outlet.say(b"x\n".to_vec(), open);
        }
        assert_eq!(outlet.dropped(), 5);
        outlet.finish(Duration::ZERO);
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            let mut piece = [0; 4096];
            while !text.ends_with("x\n") || !text.contains(" dropped\n") || text.matches("x\n").count() < LINES_MAX {
                let length = io::Read::read(&mut reader, &mut piece).unwrap();
                text.push_str(std::str::from_utf8(&piece[..length]).unwrap());
            }
            text
        });
        let text = reading.join().unwrap();
        assert!(text.contains(".first\n5 dropped\nx\n"), "{}", &text[65_000..66_000]);
        outlet.finish(PATIENCE);
        assert!(outlet.queue.lock().lines.is_empty() && outlet.dropped() == 5);
    }

    #[test]
    fn lines_of_many_bytes_are_bounded_too() {
        static PIPE: Pipe = Mutex::new(None);
        let (_reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[b'.'; 65_536]).unwrap();
        *PIPE.lock() = Some(writer);
        let outlet = outlet();
        for _ in 0..10 {
            outlet.say(vec![b'x'; BYTES_MAX / 2], || Box::new(PIPE.lock().take().unwrap()));
        }
        assert!(outlet.queue.lock().bytes <= BYTES_MAX);
        assert!(outlet.dropped() >= 7, "{}", outlet.dropped());
    }

    #[test]
    fn a_dead_stream_drops_each_line_and_tells_the_first_failure_only() {
        static FAILURES: AtomicU64 = AtomicU64::new(0);
        static OUTLET: LazyLock<Outlet> = LazyLock::new(|| {
            Outlet::new(|dropped| format!("{dropped}\n"), |_| _ = FAILURES.fetch_add(1, Ordering::Relaxed))
        });
        for _ in 0..3 {
            OUTLET.say(b"line\n".to_vec(), || Box::new(std::fs::File::create("/dev/full").unwrap()));
        }
        OUTLET.finish(PATIENCE);
        assert_eq!((OUTLET.dropped(), FAILURES.load(Ordering::Relaxed)), (3, 1));
    }
}
