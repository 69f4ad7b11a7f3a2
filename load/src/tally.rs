//! What a worker writes down about answers: latencies, errors, bytes.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in nanoseconds: ten minutes. Longer ones count as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// A histogram of latencies in nanoseconds, three significant digits from 1 µs on.
#[expect(clippy::expect_used, reason = "the bounds are constants that the histogram accepts")]
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3).expect("constant bounds")
}

/// Two digits are enough for a picture, and there are many slices.
#[expect(clippy::expect_used, reason = "the bounds are constants that the histogram accepts")]
fn slice_latencies() -> Histogram<u32> {
    Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 2).expect("constant bounds")
}

/// A stretch of a phase, for the picture over time.
#[derive(Debug, Clone)]
pub struct Slice {
    pub latencies: Histogram<u32>,
    pub errors: u64,
}

/// Sums for one operation of the mix.
#[derive(Debug, Clone)]
pub struct OperationTally {
    pub latencies: Histogram<u64>,
    pub ok: u64,
    pub not_modified: u64,
    pub errors: u64,
}

#[derive(Debug, Clone)]
pub struct Tally {
    pub operations: Vec<OperationTally>,
    pub slices: Vec<Slice>,
    slice_ns: u64,
    /// How long requests waited that were never sent, and so are of no operation.
    not_sent_latencies: Histogram<u64>,
    /// Failed requests by kind. A request is in exactly one of `ok` and `errors`.
    pub errors: BTreeMap<String, u64>,
    pub sent: u64,
    pub not_sent: u64,
    /// Errors that are in the latencies, as long as they took.
    pub given_up: u64,
    pub unknown: u64,
    /// Increments that were acknowledged, rows of batches counted one by one.
    pub rows: u64,
    pub connects: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Time of the last answer since the phase began.
    pub last_answer_ns: u64,
}

impl Tally {
    #[must_use]
    pub fn new(operations: usize, slice_ns: u64) -> Self {
        let operation = OperationTally { latencies: latencies(), ok: 0, not_modified: 0, errors: 0 };
        Self {
            operations: vec![operation; operations],
            slices: Vec::new(),
            slice_ns: slice_ns.max(1),
            not_sent_latencies: latencies(),
            errors: BTreeMap::new(),
            sent: 0,
            not_sent: 0,
            given_up: 0,
            unknown: 0,
            rows: 0,
            connects: 0,
            bytes_sent: 0,
            bytes_received: 0,
            last_answer_ns: 0,
        }
    }

    /// A request that was intended to start at `intended_ns` got a good answer at `now_ns`.
    pub fn record_ok(&mut self, operation: usize, intended_ns: u64, now_ns: u64, not_modified: bool) {
        let latency_ns = now_ns.saturating_sub(intended_ns);
        self.last_answer_ns = self.last_answer_ns.max(now_ns);
        if let Some(operation) = self.operations.get_mut(operation) {
            operation.ok += 1;
            operation.not_modified += u64::from(not_modified);
            operation.latencies.saturating_record(latency_ns);
        }
        self.slice(intended_ns).latencies.saturating_record(latency_ns);
    }

    pub fn record_error(&mut self, operation: usize, intended_ns: u64, kind: &str) {
        if let Some(operation) = self.operations.get_mut(operation) {
            operation.errors += 1;
        }
        self.slice(intended_ns).errors += 1;
        self.count_errors(kind, 1);
    }

    /// A failed request whose client waited until `now_ns`, longer than for most good answers: left out,
    /// it would make the percentiles look better than what clients saw.
    pub fn record_given_up(&mut self, operation: usize, intended_ns: u64, now_ns: u64, kind: &str) {
        let latency_ns = now_ns.saturating_sub(intended_ns);
        if let Some(operation) = self.operations.get_mut(operation) {
            operation.latencies.saturating_record(latency_ns);
        }
        self.slice(intended_ns).latencies.saturating_record(latency_ns);
        self.given_up += 1;
        self.record_error(operation, intended_ns, kind);
    }

    /// A request that should have started at `intended_ns` and did not until `now_ns`; in a closed loop
    /// the two are the same, and nobody waited.
    pub fn record_not_sent(&mut self, intended_ns: u64, now_ns: u64) {
        let latency_ns = now_ns.saturating_sub(intended_ns);
        if latency_ns > 0 {
            self.not_sent_latencies.saturating_record(latency_ns);
            self.slice(intended_ns).latencies.saturating_record(latency_ns);
            self.given_up += 1;
        }
        self.slice(intended_ns).errors += 1;
        self.not_sent += 1;
        self.count_errors("not sent in time", 1);
    }

    pub fn count_errors(&mut self, kind: &str, count: u64) {
        match self.errors.get_mut(kind) {
            Some(errors) => *errors += count,
            None if count > 0 => drop(self.errors.insert(kind.to_owned(), count)),
            None => {}
        }
    }

    fn slice(&mut self, intended_ns: u64) -> &mut Slice {
        let index = usize::try_from(intended_ns / self.slice_ns).unwrap_or(usize::MAX).min(100_000);
        if self.slices.len() <= index {
            let empty = || Slice { latencies: slice_latencies(), errors: 0 };
            self.slices.resize_with(index + 1, empty);
        }
        &mut self.slices[index]
    }

    #[must_use]
    pub fn slice_ns(&self) -> u64 {
        self.slice_ns
    }

    #[must_use]
    pub fn ok(&self) -> u64 {
        self.operations.iter().map(|operation| operation.ok).sum()
    }

    /// Of all operations together, and of what was not sent.
    #[must_use]
    pub fn latencies(&self) -> Histogram<u64> {
        let mut all = self.not_sent_latencies.clone();
        for operation in &self.operations {
            // The bounds are equal, so that adding can't fail.
            let _ = all.add(&operation.latencies);
        }
        all
    }

    #[must_use]
    pub fn error_sum(&self) -> u64 {
        self.errors.values().sum()
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.operations.iter_mut().zip(&other.operations) {
            // Bounds are equal, so that adding can't fail.
            let _ = mine.latencies.add(&theirs.latencies);
            mine.ok += theirs.ok;
            mine.not_modified += theirs.not_modified;
            mine.errors += theirs.errors;
        }
        for (index, theirs) in other.slices.iter().enumerate() {
            let mine = self.slice(index as u64 * self.slice_ns);
            let _ = mine.latencies.add(&theirs.latencies);
            mine.errors += theirs.errors;
        }
        for (kind, count) in &other.errors {
            self.count_errors(kind, *count);
        }
        self.sent += other.sent;
        let _ = self.not_sent_latencies.add(&other.not_sent_latencies);
        self.not_sent += other.not_sent;
        self.given_up += other.given_up;
        self.unknown += other.unknown;
        self.rows += other.rows;
        self.connects += other.connects;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.last_answer_ns = self.last_answer_ns.max(other.last_answer_ns);
    }
}
