//! From an operation of a scenario to the bytes of a request, built from prepared pieces.

use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::ledger::Credit;
use crate::names::{NameId, Names, Sampler};
use crate::scenario::{AckLevel, BatchFormat, Operation, PictureFormat, PollPath};

/// Bodies of a batch operation are made once and sent in rotation: making a thousand rows costs more
/// than the service needs to count them.
const BODIES: usize = 16;

/// A batch's body and what it counts, row by row.
#[derive(Debug)]
pub struct Batch {
    pub rows: Vec<(NameId, u64)>,
    body: Vec<u8>,
}

/// How requests are written: what is the same for all requests of a phase.
#[derive(Debug, Clone)]
pub struct Dialect {
    /// Value of the `Host` header; where there are several targets, each worker has its own target's.
    pub host: String,
    pub ack: Option<AckLevel>,
    pub keep_alive: bool,
    /// Speak Redis' protocol (`INCR name`) instead of HTTP.
    pub redis: bool,
}

/// A request as it was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// Index of the operation in the mix.
    pub operation: usize,
    pub credit: Credit,
    /// 404 is a fine answer: nothing was acknowledged yet for that name.
    pub may_be_missing: bool,
}

/// Where requests come from.
#[derive(Debug)]
pub enum Source {
    Mix(Box<Mix>),
    /// `POST` of the listed names, in order, one each.
    Sequence {
        names: Arc<[NameId]>,
        pieces: Pieces,
    },
}

/// Operations drawn by weight, names drawn by distribution.
#[derive(Debug)]
pub struct Mix {
    operations: Vec<(u64, Piece)>,
    weight_sum: u64,
    sampler: Sampler,
    pieces: Pieces,
    rng: SmallRng,
    last_counted: Option<NameId>,
}

#[derive(Debug)]
pub struct Pieces {
    names: Arc<Names>,
    worker: usize,
    /// From after the name to the end of the head, of a POST without a body.
    post_tail: Vec<u8>,
    /// From after the path to the last header, without the empty line.
    head_tail: Vec<u8>,
    ack_query: String,
    redis: bool,
}

#[derive(Debug)]
enum Piece {
    Single,
    Num(u64),
    Batch {
        rows: usize,
        count: u64,
        format: BatchFormat,
        gzip: bool,
        head: Vec<u8>,
        bodies: Vec<Rc<Batch>>,
        next: usize,
    },
    Get(Vec<u8>),
    Poll {
        head: Vec<u8>,
        etag: Vec<u8>,
    },
    Histogram {
        tail: Vec<u8>,
    },
}

impl Pieces {
    #[must_use]
    pub fn new(names: Arc<Names>, worker: usize, dialect: &Dialect) -> Self {
        let ack_query = dialect.ack.map_or_else(String::new, |ack| format!("?ack={}", ack.name()));
        let connection = if dialect.keep_alive { "" } else { "Connection: close\r\n" };
        let head_tail = format!(" HTTP/1.1\r\nHost: {}\r\n{connection}", dialect.host).into_bytes();
        let post_tail = [ack_query.as_bytes(), &head_tail, b"Content-Length: 0\r\n\r\n"].concat();
        Self { names, worker, post_tail, head_tail, ack_query, redis: dialect.redis }
    }

    fn write_post(&self, name: NameId, num: Option<u64>, out: &mut Vec<u8>) {
        if self.redis {
            let name = self.names.text(self.worker, name);
            let _ = write!(out, "*2\r\n$4\r\nINCR\r\n${}\r\n{name}\r\n", name.len());
            return;
        }
        out.extend_from_slice(b"POST /api/events/");
        self.names.write_segment(self.worker, name, out);
        if let Some(num) = num {
            let _ = write!(out, "/{num}");
        }
        out.extend_from_slice(&self.post_tail);
    }

    fn get(&self, path: &str) -> Vec<u8> {
        [b"GET ", path.as_bytes(), &self.head_tail, b"\r\n"].concat()
    }
}

impl Source {
    /// The requests that `operations` and `sampler` describe; `now` dates the reads.
    #[must_use]
    pub fn mix(operations: &[Operation], sampler: Sampler, pieces: Pieces, seed: u64, now: DateTime<Utc>) -> Self {
        let mut weight_sum = 0;
        let operations = operations
            .iter()
            .map(|operation| {
                weight_sum += u64::from(operation.weight());
                (weight_sum, Piece::new(operation, &pieces, now))
            })
            .collect();
        let rng = SmallRng::seed_from_u64(seed ^ (pieces.worker as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self::Mix(Box::new(Mix { operations, weight_sum, sampler, pieces, rng, last_counted: None }))
    }

    /// Appends the bytes of the next request to `out`. `index` is its place in the whole schedule.
    pub fn write(&mut self, index: u64, out: &mut Vec<u8>) -> Written {
        match self {
            Self::Mix(mix) => mix.write(out),
            Self::Sequence { names, pieces } => {
                let name = usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or_default();
                pieces.write_post(name, None, out);
                Written { operation: 0, credit: Credit::One { name, count: 1 }, may_be_missing: false }
            }
        }
    }

    /// Takes note of what an answer said, for requests that build on it.
    pub fn answered(&mut self, written: &Written, ok: bool, new_etag: Option<&[u8]>) {
        let Self::Mix(mix) = self else { return };
        match &written.credit {
            Credit::One { name, .. } if ok => mix.last_counted = Some(*name),
            Credit::Rows(batch) if ok => mix.last_counted = batch.rows.first().map(|(name, _)| *name),
            _ => {}
        }
        if let (Some((_, Piece::Poll { etag, .. })), Some(new_etag)) =
            (mix.operations.get_mut(written.operation), new_etag)
        {
            etag.clear();
            etag.extend_from_slice(new_etag);
        }
    }
}

impl Mix {
    fn write(&mut self, out: &mut Vec<u8>) -> Written {
        let ticket = if self.operations.len() == 1 { 0 } else { self.rng.random_range(0..self.weight_sum) };
        let operation = self.operations.iter().position(|(end, _)| ticket < *end).unwrap_or_default();
        let pieces = &self.pieces;
        let mut may_be_missing = false;
        let credit = match &mut self.operations[operation].1 {
            Piece::Single => {
                let name = self.sampler.next(&mut self.rng);
                pieces.write_post(name, None, out);
                Credit::One { name, count: 1 }
            }
            Piece::Num(num) => {
                let name = self.sampler.next(&mut self.rng);
                pieces.write_post(name, Some(*num), out);
                Credit::One { name, count: *num }
            }
            Piece::Batch { rows, count, format, gzip, head, bodies, next } => {
                let slot = *next % BODIES;
                *next += 1;
                if pieces.names.is_ever_new() {
                    bodies.clear();
                }
                if bodies.len() <= slot {
                    let batch = Batch::new(*rows, *count, *format, *gzip, pieces, &mut self.sampler, &mut self.rng);
                    bodies.push(Rc::new(batch));
                }
                let batch = Rc::clone(&bodies[slot.min(bodies.len() - 1)]);
                out.extend_from_slice(head);
                let _ = write!(out, "Content-Length: {}\r\n\r\n", batch.body.len());
                out.extend_from_slice(&batch.body);
                Credit::Rows(batch)
            }
            Piece::Get(whole) => {
                out.extend_from_slice(whole);
                Credit::Nothing
            }
            Piece::Poll { head, etag } => {
                out.extend_from_slice(head);
                if !etag.is_empty() {
                    out.extend_from_slice(b"If-None-Match: ");
                    out.extend_from_slice(etag);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"\r\n");
                Credit::Nothing
            }
            Piece::Histogram { tail } => {
                may_be_missing = self.last_counted.is_none();
                out.extend_from_slice(b"GET /api/events/histogram/");
                pieces.names.write_segment(pieces.worker, self.last_counted.unwrap_or_default(), out);
                out.extend_from_slice(tail);
                Credit::Nothing
            }
        };
        Written { operation, credit, may_be_missing }
    }
}

impl Piece {
    fn new(operation: &Operation, pieces: &Pieces, now: DateTime<Utc>) -> Self {
        let range = |hours: u32| {
            let start = now - TimeDelta::hours(i64::from(hours.saturating_sub(1)));
            format!("/api/events?start_date={}&end_date={}", start.format("%Y%m%d%H"), now.format("%Y%m%d%H"))
        };
        match operation {
            Operation::Single { .. } => Self::Single,
            Operation::Num { num, .. } => Self::Num(*num),
            Operation::Batch { rows, count, format, gzip, .. } => {
                let encoding = if *gzip { "Content-Encoding: gzip\r\n" } else { "" };
                let content_type = format!("Content-Type: {}\r\n{encoding}", format.content_type());
                let path = format!("POST /api/events{}", pieces.ack_query);
                let head = [path.as_bytes(), &pieces.head_tail, content_type.as_bytes()].concat();
                Self::Batch {
                    rows: *rows as usize,
                    count: *count,
                    format: *format,
                    gzip: *gzip,
                    head,
                    bodies: Vec::new(),
                    next: 0,
                }
            }
            Operation::Range { hours, .. } => Self::Get(pieces.get(&range(*hours))),
            Operation::Unique { .. } => Self::Get(pieces.get("/api/events/unique")),
            Operation::Poll { path, .. } => {
                let path = match path {
                    PollPath::Unique => "/api/events/unique".to_owned(),
                    PollPath::Range { hours } => range(*hours),
                };
                Self::Poll { head: [b"GET ", path.as_bytes(), &pieces.head_tail].concat(), etag: Vec::new() }
            }
            Operation::Histogram { format, .. } => {
                let path = format!("/{}?format={}", now.format("%Y%m%d"), PictureFormat::name(*format));
                Self::Histogram { tail: [path.as_bytes(), &pieces.head_tail, b"\r\n"].concat() }
            }
        }
    }
}

impl Batch {
    fn new(
        rows: usize,
        count: u64,
        format: BatchFormat,
        gzip: bool,
        pieces: &Pieces,
        sampler: &mut Sampler,
        rng: &mut SmallRng,
    ) -> Self {
        let rows: Vec<(NameId, u64)> = (0..rows).map(|_| (sampler.next(rng), count)).collect();
        let array = format != BatchFormat::Ndjson;
        let mut body = Vec::with_capacity(rows.len() * 48);
        for (index, (name, count)) in rows.iter().enumerate() {
            if array {
                body.push(if index == 0 { b'[' } else { b',' });
            }
            body.extend_from_slice(b"{\"event\":");
            // Writing a text into a vector can't fail.
            let _ = serde_json::to_writer(&mut body, pieces.names.text(pieces.worker, *name).as_ref());
            if *count != 1 {
                let _ = write!(body, ",\"count\":{count}");
            }
            body.extend_from_slice(if array { b"}" } else { b"}\n" });
        }
        if array {
            body.push(b']');
        }
        if gzip {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            let _ = encoder.write_all(&body);
            body = encoder.finish().unwrap_or_default();
        }
        Self { rows, body }
    }
}
