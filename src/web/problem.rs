//! Every answer in JSON as bytes: the envelope of success, and each problem with its status and its words.

use hyper::header::{ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use hyper::{Method, StatusCode, header::HeaderValue};
use serde::Serialize;
use warp::reply::Response;

use super::envelope::{BatchOutcome, Counted, FailureEnvelope, Words};
use super::query_string::PARAMETERS_MAX;
use crate::batch::RecordError;
use crate::domain::{NUM_MAX, NameError, RangeError, TOTAL_MAX};
use crate::query::StoreError;
pub(crate) use unread::Unread;

mod unread;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How long a client should wait before it asks again something that failed for want of a part.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("5");

/// A whole answer in JSON. `body` is written out already, so that the answers to counting, which are
/// constants, cost nothing.
pub(crate) fn json(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// `{"status":true,"response":…}` with status 200.
pub(crate) fn success(response: &impl Serialize) -> Response {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        status: bool,
        response: &'a T,
    }
    match serde_json::to_vec(&Envelope { status: true, response }) {
        Ok(body) => json(StatusCode::OK, body),
        // A map with keys that are no text would do it; no answer has one.
        Err(_) => Problem::Panicked.answer(&Method::GET),
    }
}

/// Whatever can be said other than yes.
#[derive(Debug)]
pub(crate) enum Problem {
    NotFound,
    MethodNotAllowed {
        allow: &'static str,
    },
    BadTarget,
    Unread(Unread),
    DuplicateParameter {
        name: String,
    },
    TooManyParameters,
    NotCountable(NameError),
    NotCountableMany(NameError),
    BadNum,
    BadAck,
    Record(RecordError),
    /// Counted, but the journal failed before it could confirm.
    NotConfirmed,
    StoreAckTimeout,
    Range(RangeError),
    BadDay,
    UnknownEvent,
    BadFormat,
    BadSize(String),
    Render,
    Store(StoreError),
    Unready {
        why: &'static str,
    },
    TooManyWait,
    BodyTooLarge {
        bytes_max: usize,
    },
    TooManyBodies,
    BodyBroken,
    BodyTimeout,
    BadContentType,
    BadContentEncoding,
    BadGzip,
    NotABatch {
        why: &'static str,
    },
    /// A batch all of whose items were refused.
    NothingAccepted(BatchOutcome),
    /// A body came with a path that says all.
    BodyNotTaken,
    Panicked,
}

/// Whether the connection can go on after the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Go,
    RetryLater,
    Close,
}

/// Status, what follows, the code and the detail of `internal`, and `external`.
type Description = (StatusCode, Then, &'static str, String, String);

impl Problem {
    fn describe(&self) -> Description {
        use StatusCode as S;
        match self {
            Self::NotFound => (
                S::NOT_FOUND,
                Then::Go,
                "not_found",
                "no route has this path".into(),
                "There is nothing at this address.".into(),
            ),
            Self::MethodNotAllowed { allow } => (
                S::METHOD_NOT_ALLOWED,
                Then::Go,
                "method_not_allowed",
                format!("this path takes {allow}"),
                format!("This address can only be used with {allow}."),
            ),
            Self::BadTarget => (
                S::BAD_REQUEST,
                Then::Close,
                "bad_target",
                "the request target is neither a path that begins with a slash nor an http address".into(),
                "This is no proxy: the address must be a path.".into(),
            ),
            Self::Unread(unread) => unread.describe(),
            Self::DuplicateParameter { name } => (
                S::BAD_REQUEST,
                Then::Go,
                "duplicate_parameter",
                format!("`{}` occurs more than once", name.escape_debug()),
                format!("The parameter {} must be given only once.", name.escape_debug()),
            ),
            Self::TooManyParameters => (
                S::BAD_REQUEST,
                Then::Go,
                "too_many_parameters",
                format!("a query has at most {PARAMETERS_MAX} parameters"),
                format!("The address has more than {PARAMETERS_MAX} parameters."),
            ),
            Self::NotCountable(error) => (
                S::FORBIDDEN,
                Then::Go,
                "bad_name",
                error.to_string(),
                "This name cannot be counted: names have 1 to 255 bytes of text without control characters.".into(),
            ),
            Self::NotCountableMany(error) => (
                S::NOT_FOUND,
                Then::Go,
                "bad_name",
                error.to_string(),
                "This name cannot be counted: names have 1 to 255 bytes of text without control characters.".into(),
            ),
            Self::BadNum => (
                S::NOT_FOUND,
                Then::Go,
                "bad_num",
                format!("a whole number from 1 to {NUM_MAX} is expected"),
                format!("The number of occurrences must be a whole number from 1 to {NUM_MAX}."),
            ),
            Self::BadAck => (
                S::BAD_REQUEST,
                Then::Go,
                "bad_ack",
                "`ack` is memory, journal, disk or store".into(),
                "The parameter ack must be one of memory, journal, disk, store.".into(),
            ),
            Self::Record(RecordError::JournalUnavailable) => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "journal_unavailable",
                "the journal cannot be written".into(),
                "Counting is not possible at the moment; please try again later.".into(),
            ),
            Self::Record(RecordError::TotalOverflow) => (
                S::CONFLICT,
                Then::Go,
                "total_overflow",
                format!("the total of this event would exceed {TOTAL_MAX}"),
                "This event has been counted as often as can be counted.".into(),
            ),
            Self::Record(RecordError::TooManyEvents) => (
                S::FORBIDDEN,
                Then::Go,
                "too_many_events",
                "the limit limits.events_max of distinct event names is reached".into(),
                "There are too many different events already; known ones are still counted.".into(),
            ),
            Self::Record(RecordError::Inactive) => (
                S::FORBIDDEN,
                Then::Go,
                "event_inactive",
                "an administrator has switched this event off".into(),
                "This event has been switched off, so it is not counted.".into(),
            ),
            Self::Record(RecordError::Deleted) => (
                S::FORBIDDEN,
                Then::Go,
                "event_deleted",
                "an administrator has deleted this event".into(),
                "This event has been deleted, so it is not counted.".into(),
            ),
            Self::NotConfirmed => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "not_confirmed",
                "the journal failed before it confirmed".into(),
                "It is not certain that this was counted.".into(),
            ),
            Self::StoreAckTimeout => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "store_ack_timeout",
                "the store did not commit in time, the count is still pending".into(),
                "The database did not confirm in time; what was counted is kept and will reach it later.".into(),
            ),
            Self::Range(error) => (
                S::BAD_REQUEST,
                Then::Go,
                "bad_range",
                error.to_string(),
                "Please give start_date and end_date as YYYYMMDD or YYYYMMDDHH (UTC), the start not after the end."
                    .into(),
            ),
            Self::BadDay => (
                S::BAD_REQUEST,
                Then::Go,
                "bad_day",
                "YYYYMMDD is expected, in UTC".into(),
                "Please give the day as YYYYMMDD (UTC).".into(),
            ),
            Self::UnknownEvent => (
                S::NOT_FOUND,
                Then::Go,
                "unknown_event",
                "this event was never counted".into(),
                "This event has never been counted.".into(),
            ),
            Self::BadFormat => (
                S::BAD_REQUEST,
                Then::Go,
                "bad_format",
                "`format` is png, jpg, svg or json".into(),
                "The parameter format must be one of png, jpg, svg, json.".into(),
            ),
            Self::BadSize(error) => (
                S::BAD_REQUEST,
                Then::Go,
                "bad_size",
                error.to_string(),
                format!("The picture cannot have this size: {error}."),
            ),
            Self::Render => (
                S::INTERNAL_SERVER_ERROR,
                Then::Go,
                "render_failed",
                "the picture could not be drawn".into(),
                "The picture could not be drawn.".into(),
            ),
            Self::Store(StoreError::TooManyRows { rows_max }) => (
                S::BAD_REQUEST,
                Then::Go,
                "too_many_rows",
                format!("the range holds more than {rows_max} rows (http.range_rows_max)"),
                format!("This range holds more than {rows_max} rows; please ask for shorter ranges, one by one."),
            ),
            Self::Store(StoreError::Refused(_)) => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "store_refused",
                "the database turns this service away; /readyz and the log say why, and what to do".into(),
                "The database does not let this service in, so exact numbers are not available; \
                 counting goes on and nothing is lost."
                    .into(),
            ),
            Self::Store(StoreError::AnotherDatabase(_)) => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "another_database",
                "another database answers than the one that this node belongs to; the log says which".into(),
                "Another database is connected than the one with these numbers; counting goes on and nothing is lost."
                    .into(),
            ),
            Self::Store(StoreError::CatalogChanging) => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "catalog_changing",
                "the catalog changes faster than rows can be read with it".into(),
                "The events are being changed by an administrator at the moment; please try again.".into(),
            ),
            Self::Store(StoreError::Unavailable(_)) => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "store_unavailable",
                "the store cannot be read at the moment".into(),
                "The database cannot be reached at the moment, so exact numbers are not available; \
                 counting goes on and nothing is lost."
                    .into(),
            ),
            Self::Store(StoreError::Rejected(_)) => (
                S::INTERNAL_SERVER_ERROR,
                Then::Go,
                "store_rejected",
                "the store refused the query; the log says why".into(),
                "The numbers could not be read.".into(),
            ),
            Self::Unready { why } => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "unready",
                (*why).to_owned(),
                "This node takes no traffic at the moment.".into(),
            ),
            Self::TooManyWait => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "too_many_wait",
                "too many requests wait for the same; try again".into(),
                "Too many people ask for this at the moment; please try again.".into(),
            ),
            Self::Store(StoreError::Busy) => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "busy",
                "the lists that are being read and sent take all the memory they may (http.lists_bytes_max)".into(),
                "Too many long lists are being read at the moment; please try again.".into(),
            ),
            Self::BodyTooLarge { bytes_max } => (
                S::PAYLOAD_TOO_LARGE,
                Then::Close,
                "body_too_large",
                format!("a body has at most {bytes_max} bytes (http.body_bytes_max)"),
                format!("The request is larger than {bytes_max} bytes."),
            ),
            Self::TooManyBodies => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "too_many_bodies",
                "the bodies under way hold as much as they may (http.bodies_bytes_max)".into(),
                "Too much is being sent at the same time; please try again later.".into(),
            ),
            Self::BodyBroken => (
                S::BAD_REQUEST,
                Then::Close,
                "body_broken",
                "the body ended early or is malformed".into(),
                "The request did not arrive whole.".into(),
            ),
            Self::BodyTimeout => (
                S::REQUEST_TIMEOUT,
                Then::Close,
                "body_timeout",
                "the body did not arrive in time".into(),
                "The request did not arrive in time.".into(),
            ),
            Self::BadContentType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                Then::Go,
                "bad_content_type",
                "application/json, application/x-ndjson or text/plain is expected".into(),
                "Events must be sent as JSON, as lines of JSON (NDJSON), or as plain text that holds one of these."
                    .into(),
            ),
            Self::BadContentEncoding => (
                S::UNSUPPORTED_MEDIA_TYPE,
                Then::Go,
                "bad_content_encoding",
                "a body is plain or compressed once with gzip".into(),
                "The request is compressed in a way that is not understood here; use gzip or nothing.".into(),
            ),
            Self::BadGzip => (
                S::BAD_REQUEST,
                Then::Close,
                "bad_gzip",
                "the body is not valid gzip".into(),
                "The compressed request is damaged.".into(),
            ),
            Self::NotABatch { why } => (
                S::BAD_REQUEST,
                Then::Go,
                "not_a_batch",
                (*why).to_owned(),
                "Please send a list of events, such as [\"login\", {\"event\": \"logout\", \"count\": 2}].".into(),
            ),
            Self::NothingAccepted(_) => (
                S::BAD_REQUEST,
                Then::Go,
                "nothing_accepted",
                "no item of the batch can be counted; `errors` says why".into(),
                "None of these events could be counted.".into(),
            ),
            Self::BodyNotTaken => (
                S::BAD_REQUEST,
                Then::Go,
                "body_not_taken",
                "the path says all that is counted here; send a batch to /api/events, or no body".into(),
                "This address takes no content: what it says by itself is what would be counted.".into(),
            ),
            Self::Panicked => (
                S::INTERNAL_SERVER_ERROR,
                Then::Go,
                "panicked",
                "the handler failed".into(),
                "Something went wrong here; it has been logged.".into(),
            ),
        }
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        self.describe().2
    }

    /// What went wrong, for a developer: the code, a colon and the detail.
    pub(crate) fn internal(&self) -> String {
        let (_, _, code, detail, _) = self.describe();
        format!("{code}: {detail}")
    }

    /// Whether the increments of a failed POST are counted.
    fn counted(&self) -> Counted {
        match self {
            Self::NotConfirmed | Self::StoreAckTimeout | Self::Panicked => Counted::Unknown,
            _ => Counted::No,
        }
    }

    /// The body of a failure. For a POST it has the field `counted`, and `internal` ends with the same.
    pub(crate) fn envelope(&self, method: &Method) -> String {
        let (status, _, _, _, external) = self.describe();
        let counted = (method == Method::POST).then(|| self.counted());
        let told = counted.map(|counted| format!("; counted: {}", counted.as_str())).unwrap_or_default();
        let envelope = FailureEnvelope {
            status: false,
            response: (status != StatusCode::BAD_REQUEST).then(|| status.as_u16()),
            error: Words { internal: self.internal() + &told, external },
            counted,
            outcome: match self {
                Self::NothingAccepted(outcome) => Some(outcome),
                _ => None,
            },
        };
        // Only maps with keys that are no text can't be written.
        serde_json::to_string(&envelope).unwrap_or_default()
    }

    /// The whole answer of a failure.
    pub(crate) fn answer(&self, method: &Method) -> Response {
        let (status, then, ..) = self.describe();
        let mut response = json(status, self.envelope(method));
        let mut add = |name: HeaderName, value| response.headers_mut().insert(name, value);
        match then {
            Then::Go => None,
            Then::RetryLater => add(RETRY_AFTER, RETRY_AFTER_S),
            Then::Close => add(CONNECTION, HeaderValue::from_static("close")),
        };
        match self {
            Self::MethodNotAllowed { allow } => add(ALLOW, HeaderValue::from_static(allow)),
            Self::BadContentEncoding => add(ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
            _ => None,
        };
        response
    }
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

impl From<RangeError> for Problem {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let StoreError::Rejected(why) = &error {
            tracing::error!(%why, "the store refused a read");
        }
        Self::Store(error)
    }
}
