//! What is refused before anybody reads what it asks for: by the connection, or where a connection is not let in.

use hyper::{Method, StatusCode};

use super::{Description, Problem, Then};

/// Why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unread {
    Malformed,
    Fragment,
    BadHost,
    BadTransferEncoding,
    HeadTooLarge,
    TargetTooLong,
    HeadTimeout,
    TooManyConnections,
    TooManyOfClient,
    /// The system clock says a time before 1970.
    Clock,
}

impl Unread {
    pub(super) fn describe(self) -> Description {
        use StatusCode as S;
        match self {
            Self::Malformed => (
                S::BAD_REQUEST,
                Then::Close,
                "malformed_request",
                "the request line or a header is not valid HTTP/1.1".into(),
                "This request cannot be understood.".into(),
            ),
            Self::Fragment => (
                S::BAD_REQUEST,
                Then::Close,
                "fragment",
                "the request target has a `#`; in a name it is sent as %23".into(),
                "The address has a # that is not encoded; please write %23.".into(),
            ),
            Self::BadHost => (
                S::BAD_REQUEST,
                Then::Close,
                "bad_host",
                "exactly one valid Host header is expected".into(),
                "This request does not say properly which host it is for.".into(),
            ),
            Self::BadTransferEncoding => (
                S::NOT_IMPLEMENTED,
                Then::Close,
                "bad_transfer_encoding",
                "Transfer-Encoding is chunked, once, or absent; a compressed body has Content-Encoding: gzip".into(),
                "The request is encoded in a way that is not understood here.".into(),
            ),
            Self::HeadTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Then::Close,
                "head_too_large",
                "the request line and headers exceed http.header_bytes_max, or there are more than 100 headers".into(),
                "The request has more, or longer, headers than are taken here.".into(),
            ),
            Self::TargetTooLong => (
                S::URI_TOO_LONG,
                Then::Close,
                "target_too_long",
                "the request target exceeds 65534 bytes".into(),
                "The address is too long.".into(),
            ),
            Self::HeadTimeout => (
                S::REQUEST_TIMEOUT,
                Then::Close,
                "head_timeout",
                "the headers did not arrive in time (http.header_timeout_ms)".into(),
                "The request did not arrive in time.".into(),
            ),
            Self::TooManyConnections => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "too_many_connections",
                "the limit http.connections_max is reached, and all connections are busy".into(),
                "Too many clients are connected; please try again.".into(),
            ),
            Self::TooManyOfClient => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "too_many_connections",
                "this client has http.connections_per_client_max connections, and all of them are busy".into(),
                "Your network has too many connections; please try again.".into(),
            ),
            Self::Clock => (
                S::SERVICE_UNAVAILABLE,
                Then::RetryLater,
                "clock",
                "the system clock says a time before 1970".into(),
                "The clock of this server is wrong; please try again later.".into(),
            ),
        }
    }
}

impl Problem {
    /// A whole answer for where hyper does not speak. `headers`: more lines of the head, each with its end.
    pub(crate) fn on_the_wire(&self, headers: &str) -> Vec<u8> {
        let (status, then, ..) = self.describe();
        let body = self.envelope(&Method::POST);
        let retry_after = match (then, self) {
            (Then::RetryLater, Self::StoreAckTimeout) => "retry-after: 5\r\n",
            (Then::RetryLater, _) => "retry-after: 1\r\n",
            _ => "",
        };
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             {retry_after}{headers}connection: close\r\n\r\n{body}",
            body.len(),
        )
        .into_bytes()
    }
}
