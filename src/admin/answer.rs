//! Every answer of the dashboard: pages, redirects, JSON envelopes and failures, all with the same
//! headers.

use std::convert::Infallible;
use std::time::Duration;

use askama::Template;
use bytes::Bytes;
use futures_util::stream;
use hyper::StatusCode;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use serde::Serialize;
use warp::Reply;
use warp::reply::Response;

use super::view::{Page, grouped};
use crate::query::lists::Held;
use crate::store::StoreError;
use crate::store::admin::Refusal;

/// No inline code or style, nothing from elsewhere, in nobody's frame.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody is signed in. Pages send to the login, and from there to `next`.
    SignedOut {
        next: String,
    },
    /// A changing request that no page of ours has made.
    CrossSite,
    NotFound,
    MethodNotAllowed {
        allow: &'static str,
    },
    /// A sentence for the person.
    BadRequest(String),
    TooManyParameters,
    /// Understood, but it can't be done.
    Refused(Refusal),
    /// Too many attempts to log in.
    Throttled(Duration),
    /// The limit of live streams is reached.
    Busy,
    /// Too many passwords wait to be checked.
    Crowded,
    Store(StoreError),
    /// The store did not say whether it made a change.
    OutcomeUnknown,
    Internal,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if let StoreError::Rejected(why) = &error {
            tracing::error!(%why, "the store refused a request of the dashboard");
        }
        Self::Store(error)
    }
}

impl From<super::password::HashError> for Failure {
    fn from(error: super::password::HashError) -> Self {
        if error == super::password::HashError::Crowded {
            return Self::Crowded;
        }
        tracing::error!(%error, "a password could not be hashed");
        Self::Internal
    }
}

impl Failure {
    /// Of a change that the store may have made although it gives an error.
    pub(super) fn of_change(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::OutcomeUnknown,
            error => error.into(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::SignedOut { .. } => StatusCode::UNAUTHORIZED,
            Self::CrossSite => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadRequest(_) | Self::TooManyParameters | Self::Store(StoreError::TooManyRows { .. }) => {
                StatusCode::BAD_REQUEST
            }
            Self::Refused(_) => StatusCode::CONFLICT,
            Self::Throttled(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy
            | Self::Crowded
            | Self::OutcomeUnknown
            | Self::Store(
                StoreError::Busy
                | StoreError::Unavailable(_)
                | StoreError::Refused(_)
                | StoreError::AnotherDatabase(_)
                | StoreError::CatalogChanging,
            ) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(StoreError::Rejected(_)) | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable code for programs.
    fn code(&self) -> &'static str {
        match self {
            Self::SignedOut { .. } => "unauthorized: a session or an admin key is needed",
            Self::CrossSite => "cross_site: a session can only be used by the dashboard's own pages",
            Self::NotFound => "not_found: no route has this path, or there is no such thing",
            Self::MethodNotAllowed { .. } => "method_not_allowed: this path takes other methods",
            Self::BadRequest(_) => "bad_request: a value is missing or malformed",
            Self::TooManyParameters => "too_many_parameters: a query or a form has at most 32",
            Self::Refused(_) => "refused: nothing was changed",
            Self::Throttled(_) => "throttled: too many attempts",
            Self::Busy => "too_many_streams: the limit admin.streams_max is reached",
            Self::Crowded => "too_many_wait: too many passwords wait to be checked",
            Self::Store(StoreError::Busy) => "busy: the lists that are being read take all the memory they may",
            Self::OutcomeUnknown => "outcome_unknown: the store did not say whether the change was made",
            Self::Store(StoreError::TooManyRows { .. }) => "too_many_rows: the range holds too much",
            Self::Store(StoreError::Refused(_)) => {
                "store_refused: the database turns this service away; /readyz says why"
            }
            Self::Store(StoreError::AnotherDatabase(_)) => "another_database: not the one that this node belongs to",
            Self::Store(StoreError::CatalogChanging) => {
                "catalog_changing: the catalog changes faster than it can be read"
            }
            Self::Store(StoreError::Unavailable(_)) => "store_unavailable: the store cannot be used at the moment",
            Self::Store(StoreError::Rejected(_)) => "store_rejected: the store refused; the log says why",
            Self::Internal => "internal: the log says why",
        }
    }

    pub(super) fn title(&self) -> &'static str {
        match self {
            Self::SignedOut { .. } => "Please sign in",
            Self::NotFound => "Nothing here",
            Self::Refused(_) => "That was not possible",
            Self::Throttled(_) => "Too many attempts",
            Self::OutcomeUnknown => "The database did not answer",
            Self::Store(StoreError::Refused(_)) => "The database does not let this service in",
            Self::Store(StoreError::AnotherDatabase(_)) => "Another database is connected",
            Self::Store(StoreError::Unavailable(_) | StoreError::CatalogChanging) => "The database cannot be reached",
            Self::Store(StoreError::TooManyRows { .. }) => "Too much at once",
            Self::Internal | Self::Store(StoreError::Rejected(_)) => "Something went wrong",
            _ => "That did not work",
        }
    }

    /// A sentence for a person.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::SignedOut { .. } => "This needs a signed-in superuser or an admin key.".into(),
            Self::CrossSite => "This can only be done from the pages of the dashboard.".into(),
            Self::NotFound => "There is nothing at this address. It may have been removed, or never existed.".into(),
            Self::MethodNotAllowed { allow } => format!("This address can only be used with {allow}."),
            Self::BadRequest(why) => why.clone(),
            Self::TooManyParameters => "This has more than 32 parameters.".into(),
            Self::Refused(why) => why.to_string(),
            Self::Throttled(wait) => {
                format!("Too many attempts. Please try again in {} seconds.", seconds_up(*wait))
            }
            Self::Busy => "Too many dashboards are open at the moment.".into(),
            Self::Crowded => "Too many people are signing in at the moment; please try again in a few seconds.".into(),
            Self::Store(StoreError::Busy) => {
                "Too many long lists are being read at the moment; please try again in a few seconds.".into()
            }
            Self::OutcomeUnknown => {
                "Whether the change was made is unknown. Look at Changes, once the database is back, before you repeat it."
                    .into()
            }
            Self::Store(StoreError::TooManyRows { .. }) => {
                "This range holds too many numbers; choose a shorter one.".into()
            }
            Self::Store(StoreError::Unavailable(_) | StoreError::Refused(_) | StoreError::AnotherDatabase(_) | StoreError::CatalogChanging) => {
                "Counting goes on and nothing is lost, but exact numbers have to wait until it is back.".into()
            }
            Self::Store(StoreError::Rejected(_)) | Self::Internal => "It has been logged.".into(),
        }
    }

    pub(super) fn page(&self, page: Page) -> Response {
        #[derive(Template)]
        #[template(path = "failure.html", config = "src/admin/askama.toml")]
        struct FailurePage<'a> {
            page: Page,
            status: u16,
            title: &'a str,
            sentence: String,
        }
        let title = self.title();
        let sentence = match self {
            Self::Refused(why) => why.sentence(|hour| page.hour(&hour), grouped),
            _ => self.sentence(),
        };
        let content = FailurePage { page, status: self.status().as_u16(), title, sentence };
        let mut response = html(&content);
        *response.status_mut() = self.status();
        self.add_headers(response.headers_mut());
        response
    }

    /// The envelope of a failure.
    pub(super) fn json(&self) -> Response {
        let status = self.status();
        let number = (status != StatusCode::BAD_REQUEST).then(|| status.as_u16());
        let body = serde_json::json!({
            "status": false,
            "response": number,
            "error": { "internal": self.code(), "external": self.sentence() },
        });
        let mut response = bytes("application/json", body.to_string());
        *response.status_mut() = status;
        self.add_headers(response.headers_mut());
        response
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        match self {
            Self::MethodNotAllowed { allow } => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::Throttled(wait) => {
                headers.insert(RETRY_AFTER, seconds_up(*wait).into());
            }
            Self::Busy
            | Self::Crowded
            | Self::Store(
                StoreError::Busy
                | StoreError::Unavailable(_)
                | StoreError::Refused(_)
                | StoreError::AnotherDatabase(_)
                | StoreError::CatalogChanging,
            ) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
    }
}

fn seconds_up(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// A whole page.
pub(super) fn html(content: &impl Template) -> Response {
    match content.render() {
        Ok(text) => bytes("text/html; charset=utf-8", text),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            let mut response = Response::default();
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

pub(super) fn bytes(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A long body, which is copied piece by piece while it is sent, and takes its bytes until then.
pub(super) fn in_pieces(content_type: &'static str, text: String, held: Held) -> Response {
    let text = Bytes::from(text);
    let length = text.len();
    let pieces = (0..length).step_by(PIECE_BYTES).map(move |at| {
        let _ = &held;
        Ok::<_, Infallible>(text.slice(at..length.min(at + PIECE_BYTES)))
    });
    let mut response = warp::reply::stream(stream::iter(pieces)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

const PIECE_BYTES: usize = 64 * 1024;

/// The envelope of success.
pub(super) fn success(content: &impl Serialize) -> Response {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        status: bool,
        response: &'a T,
    }
    match serde_json::to_vec(&Envelope { status: true, response: content }) {
        Ok(body) => bytes("application/json", body),
        // A map with keys that are no text would do it; no answer has one.
        Err(_) => Failure::Internal.json(),
    }
}

/// To another page of ours, by GET.
pub(super) fn see_other(path: &str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(location) = HeaderValue::try_from(path) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// What every answer below `/admin` and `/api/v1/admin` carries.
pub(super) fn seal(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut add = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    add(CONTENT_SECURITY_POLICY, POLICY);
    add(X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Not `no-referrer`: with that, browsers send `Origin: null` with our own forms.
    add(REFERRER_POLICY, "same-origin");
    add(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    add(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    // Pages hold what only a signed-in person may see: after the logout, the back button must not
    // bring them back. Assets say otherwise, themselves.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
