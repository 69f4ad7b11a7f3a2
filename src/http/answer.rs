//! Every answer as bytes: the envelope of success, and each error with its status and its words.

use hyper::header::{ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use hyper::{Method, StatusCode, header::HeaderValue};
use serde::Serialize;
use warp::reply::Response;

use crate::batch::RecordError;
use crate::domain::{NUM_MAX, NameError, RangeError, TOTAL_MAX};
use crate::query::StoreError;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How long a client should wait before it asks again something that failed for want of a part.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("5");

/// A whole answer in JSON. `body` is written out already, so that the answers to counting, which are
/// constants, cost nothing.
pub(super) fn json(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// `{"status":true,"response":…}` with status 200.
pub(super) fn success(response: &impl Serialize) -> Response {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        status: bool,
        response: &'a T,
    }
    match serde_json::to_vec(&Envelope { status: true, response }) {
        Ok(body) => json(StatusCode::OK, body),
        // A map with keys that are no text would do it; no answer has one.
        Err(_) => ApiError::Panicked.answer(&Method::GET),
    }
}

/// Whatever can be said other than yes.
#[derive(Debug)]
pub(super) enum ApiError {
    NotFound,
    MethodNotAllowed {
        allow: &'static str,
    },
    BadTarget,
    DuplicateParameter {
        name: String,
    },
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
    TooManyConnections,
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
    Panicked,
}

/// Whether the connection can go on after the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Go,
    RetryLater,
    Close,
}

impl ApiError {
    /// Status, what follows, `internal` and `external`.
    fn describe(&self, method: &Method) -> (StatusCode, Then, String, String) {
        use StatusCode as S;
        match self {
            Self::NotFound => (
                S::NOT_FOUND,
                Then::Go,
                "not_found: no route has this path".into(),
                "There is nothing at this address.".into(),
            ),
            Self::MethodNotAllowed { allow } => (
                S::METHOD_NOT_ALLOWED,
                Then::Go,
                format!("method_not_allowed: this path takes {allow}"),
                format!("This address can only be used with {allow}."),
            ),
            Self::BadTarget => (
                S::BAD_REQUEST,
                Then::Close,
                "bad_target: the request target is not a path that begins with a slash".into(),
                "This is no proxy: the address must be a path.".into(),
            ),
            Self::DuplicateParameter { name } => (
                S::BAD_REQUEST,
                Then::Go,
                format!("duplicate_parameter: `{}` occurs more than once", name.escape_debug()),
                format!("The parameter {} must be given only once.", name.escape_debug()),
            ),
            Self::NotCountable(error) => (
                S::FORBIDDEN,
                Then::Go,
                format!("bad_name: {error}"),
                "This name cannot be counted: names have 1 to 255 bytes of text without control characters.".into(),
            ),
            Self::NotCountableMany(error) => (
                S::NOT_FOUND,
                Then::Go,
                format!("bad_name: {error}"),
                "This name cannot be counted: names have 1 to 255 bytes of text without control characters.".into(),
            ),
            Self::BadNum => (
                S::NOT_FOUND,
                Then::Go,
                format!("bad_num: a whole number from 1 to {NUM_MAX} is expected"),
                format!("The number of occurrences must be a whole number from 1 to {NUM_MAX}."),
            ),
            Self::BadAck => (
                S::BAD_REQUEST,
                Then::Go,
                "bad_ack: `ack` is memory, journal, disk or store".into(),
                "The parameter ack must be one of memory, journal, disk, store.".into(),
            ),
            Self::Record(RecordError::JournalUnavailable) => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "journal_unavailable: the journal cannot be written".into(),
                "Counting is not possible at the moment; please try again later.".into(),
            ),
            Self::Record(RecordError::TotalOverflow) => (
                S::CONFLICT,
                Then::Go,
                format!("total_overflow: the total of this event would exceed {TOTAL_MAX}"),
                "This event has been counted as often as can be counted.".into(),
            ),
            Self::Record(RecordError::TooManyEvents) => (
                S::FORBIDDEN,
                Then::Go,
                "too_many_events: the limit limits.events_max of distinct event names is reached".into(),
                "There are too many different events already; known ones are still counted.".into(),
            ),
            Self::Record(RecordError::Inactive) => (
                S::FORBIDDEN,
                Then::Go,
                "event_inactive: an administrator has switched this event off".into(),
                "This event has been switched off, so it is not counted.".into(),
            ),
            Self::Record(RecordError::Deleted) => (
                S::FORBIDDEN,
                Then::Go,
                "event_deleted: an administrator has deleted this event".into(),
                "This event has been deleted, so it is not counted.".into(),
            ),
            Self::NotConfirmed => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "not_confirmed: the journal failed before it confirmed; counted: unknown".into(),
                "It is not certain that this was counted.".into(),
            ),
            Self::StoreAckTimeout => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "store_ack_timeout: the store did not commit in time, the count is still pending; counted: unknown"
                    .into(),
                "The database did not confirm in time; what was counted is kept and will reach it later.".into(),
            ),
            Self::Range(error) => (
                S::BAD_REQUEST,
                Then::Go,
                format!("bad_range: {error}"),
                "Please give start_date and end_date as YYYYMMDD or YYYYMMDDHH (UTC), the start not after the end."
                    .into(),
            ),
            Self::BadDay => (
                S::BAD_REQUEST,
                Then::Go,
                "bad_day: YYYYMMDD is expected, in UTC".into(),
                "Please give the day as YYYYMMDD (UTC).".into(),
            ),
            Self::UnknownEvent => (
                S::NOT_FOUND,
                Then::Go,
                "unknown_event: this event was never counted".into(),
                "This event has never been counted.".into(),
            ),
            Self::BadFormat => (
                S::BAD_REQUEST,
                Then::Go,
                "bad_format: `format` is png, jpg, svg or json".into(),
                "The parameter format must be one of png, jpg, svg, json.".into(),
            ),
            Self::BadSize(error) => (
                S::BAD_REQUEST,
                Then::Go,
                format!("bad_size: {error}"),
                format!("The picture cannot have this size: {error}."),
            ),
            Self::Render => (
                S::INTERNAL_SERVER_ERROR,
                Then::Go,
                "render_failed: the picture could not be drawn".into(),
                "The picture could not be drawn.".into(),
            ),
            Self::Store(StoreError::TooManyRows { rows_max }) => (
                S::BAD_REQUEST,
                Then::Go,
                format!("too_many_rows: the range holds more than {rows_max} rows (http.range_rows_max)"),
                format!("This range holds more than {rows_max} rows; please ask for shorter ranges, one by one."),
            ),
            Self::Store(
                StoreError::Unavailable(_)
                | StoreError::Refused(_)
                | StoreError::AnotherDatabase(_)
                | StoreError::CatalogChanging,
            ) => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "store_unavailable: the store cannot be read at the moment".into(),
                "The database cannot be reached at the moment, so exact numbers are not available; \
                 counting goes on and nothing is lost."
                    .into(),
            ),
            Self::Store(StoreError::Rejected(_)) => (
                S::INTERNAL_SERVER_ERROR,
                Then::Go,
                "store_rejected: the store refused the query; the log says why".into(),
                "The numbers could not be read.".into(),
            ),
            Self::Unready { why } => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                format!("unready: {why}"),
                "This node takes no traffic at the moment.".into(),
            ),
            Self::TooManyConnections => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "too_many_connections: the limit http.connections_max is reached".into(),
                "Too many clients are connected; please try again.".into(),
            ),
            Self::BodyTooLarge { bytes_max } => (
                S::PAYLOAD_TOO_LARGE,
                Then::Close,
                format!("body_too_large: a body has at most {bytes_max} bytes (http.body_bytes_max)"),
                format!("The request is larger than {bytes_max} bytes."),
            ),
            Self::TooManyBodies => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "too_many_bodies: the bodies under way hold as much as they may (http.bodies_bytes_max)".into(),
                "Too much is being sent at the same time; please try again later.".into(),
            ),
            Self::BodyBroken => (
                S::BAD_REQUEST,
                Then::Close,
                "body_broken: the body ended early or is malformed".into(),
                "The request did not arrive whole.".into(),
            ),
            Self::BodyTimeout => (
                S::REQUEST_TIMEOUT,
                Then::Close,
                "body_timeout: the body did not arrive in time".into(),
                "The request did not arrive in time.".into(),
            ),
            Self::BadContentType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                Then::Go,
                "bad_content_type: application/json, application/x-ndjson or text/plain is expected".into(),
                "Events must be sent as JSON, as lines of JSON (NDJSON), or as plain text that holds one of these."
                    .into(),
            ),
            Self::BadContentEncoding => (
                S::UNSUPPORTED_MEDIA_TYPE,
                Then::Go,
                "bad_content_encoding: a body is plain or compressed once with gzip".into(),
                "The request is compressed in a way that is not understood here; use gzip or nothing.".into(),
            ),
            Self::BadGzip => (
                S::BAD_REQUEST,
                Then::Close,
                "bad_gzip: the body is not valid gzip".into(),
                "The compressed request is damaged.".into(),
            ),
            Self::NotABatch { why } => (
                S::BAD_REQUEST,
                Then::Go,
                format!("not_a_batch: {why}"),
                "Please send a list of events, such as [\"login\", {\"event\": \"logout\", \"count\": 2}].".into(),
            ),
            Self::Panicked => (
                S::INTERNAL_SERVER_ERROR,
                Then::Go,
                if method == Method::POST {
                    "panicked: the handler failed; counted: unknown".into()
                } else {
                    "panicked: the handler failed".into()
                },
                "Something went wrong here; it has been logged.".into(),
            ),
        }
    }

    /// What went wrong, for a developer: a stable code, a colon and the detail.
    pub(super) fn internal(&self) -> String {
        self.describe(&Method::POST).2
    }

    /// The body of a failure. For a POST, `internal` ends with whether it was counted.
    pub(super) fn envelope(&self, method: &Method) -> String {
        let (status, _, internal, external) = self.describe(method);
        let counted = if method == Method::POST && !internal.contains("counted: ") { "; counted: no" } else { "" };
        let number = (status != StatusCode::BAD_REQUEST).then(|| status.as_u16());
        let body = serde_json::json!({
            "status": false,
            "response": number,
            "error": { "internal": format!("{internal}{counted}"), "external": external },
        });
        body.to_string()
    }

    /// The whole answer of a failure.
    pub(super) fn answer(&self, method: &Method) -> Response {
        let (status, then, ..) = self.describe(method);
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

impl From<RecordError> for ApiError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

impl From<RangeError> for ApiError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if let StoreError::Rejected(why) = &error {
            tracing::error!(%why, "the store refused a read");
        }
        Self::Store(error)
    }
}
