//! One request, from the connection to the side that answers it: the API, or the dashboard beside it. What warp must
//! not see, what nobody reads, and what must not escape ends here.

use std::any::Any;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{Method, Request, Uri};
use tower::Service;
use warp::reply::Response;

use crate::admin;
use crate::api::{self, Api, BATCHES};
use crate::batch::Batches;
use crate::domain::Ack;
use crate::node::Node;
use crate::server::{Answer, ConnectionContext, Debt, Serve};
use crate::web::cors::Cors;
use crate::web::head;
use crate::web::options::Options;
use crate::web::pace::Pace;
use crate::web::problem::{Problem, Unread};
use crate::web::query_string::RawQuery;
use crate::web::room::Room;

/// Forms of the dashboard are small.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// All that a node serves. It lives as long as the process (`Box::leak`), so that a request borrows it without
/// touching a reference count that all cores share.
pub struct Site {
    api: &'static Api,
    /// Answers whatever [`admin::is_ours`] says.
    admin: &'static admin::State,
    cors: Cors,
    batches: Arc<Batches>,
    options: Options,
    /// Another path for batches; empty: none.
    path_alias: String,
}

impl Site {
    /// `ack`: the level of acknowledgement of requests that ask for none.
    #[must_use]
    pub fn new(node: &Arc<Node>, admin: &'static admin::State, ack: Ack, options: Options) -> Self {
        Self {
            api: Box::leak(Box::new(Api::new(node, ack, options.clone()))),
            admin,
            cors: Cors::new(&options.cors_origins),
            batches: Arc::clone(&node.batches),
            options,
            path_alias: String::new(),
        }
    }

    /// The same with another path, too, for batches; empty: none.
    #[must_use]
    pub fn with_path_alias(self, path_alias: String) -> Self {
        Self { path_alias, ..self }
    }

    /// Gives back the memory of what nobody has asked for lately.
    pub fn forget_idle(&self) {
        self.api.forget_idle();
        self.admin.forget_idle();
    }

    /// From now on `/readyz` says 503: load balancers look away before the listener closes.
    pub fn begin_draining(&self) {
        self.api.begin_draining();
    }
}

/// What hyper polls for a request. Its size is copied for each, so what is not answered at once is on
/// the heap.
type Answering = Either<Ready<Answer>, BoxFuture<'static, Answer>>;

impl Serve for Site {
    fn answer(
        &'static self,
        request: Request<Incoming>,
        context: &ConnectionContext,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let is_post = request.method() == Method::POST;
        // The admin pages are never shared with other sites.
        let stamp = self.cors.stamp(&request).filter(|_| !admin::is_ours(request.uri().path()));
        let panicked = move |panic: Box<dyn Any + Send>| {
            let message = panic.downcast_ref::<&str>().copied();
            let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            tracing::error!(message = message.unwrap_or("no message"), "a handler panicked");
            Problem::Panicked.answer(if is_post { &Method::POST } else { &Method::GET }).into()
        };
        let finish = move |mut answer: Answer| {
            stamp.into_iter().for_each(|stamp| stamp.put(&mut answer.response));
            answer
        };
        let answering = std::panic::catch_unwind(AssertUnwindSafe(|| self.admit(request, context)));
        match answering.unwrap_or_else(|panic| Either::Left(ready(panicked(panic)))) {
            Either::Left(answer) => Either::Left(ready(finish(answer.into_inner()))),
            Either::Right(answer) => {
                let answer = AssertUnwindSafe(answer).catch_unwind();
                Either::Right(answer.map(move |answer| finish(answer.unwrap_or_else(panicked))))
            }
        }
    }

    fn unread(&self) -> String {
        self.cors.unread()
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn batches(&self) -> &Batches {
        &self.batches
    }

    fn begin_draining(&self) {
        self.api.begin_draining();
        self.admin.begin_draining();
    }
}

impl Site {
    fn admit(&'static self, mut request: Request<Incoming>, context: &ConnectionContext) -> Answering {
        let at_once = |answer: Answer| Either::Left(ready(answer));
        if let Err(problem) = head::check(&mut request) {
            return at_once(problem.answer(request.method()).into());
        }
        if !self.path_alias.is_empty() {
            self.resolve_alias(&mut request);
        }
        let query = request.uri().query().is_some().then(|| RawQuery(request.uri().clone()));
        let has_body = !request.body().is_end_stream();
        if has_body && !head::has_plain_framing(request.headers()) {
            return at_once(Problem::Unread(Unread::BadTransferEncoding).answer(request.method()).into());
        }
        if request.method() == Method::POST
            && !has_body
            && let Some(answer) = self.api.count(request.uri().path(), query.as_ref(), Some(context))
        {
            return at_once(answer);
        }
        if admin::is_ours(request.uri().path()) {
            return Either::Right(self.delegate(context.peer(), request).map(Answer::from).boxed());
        }
        if let Some(query) = query.clone() {
            request.extensions_mut().insert(query);
        }
        if has_body && api::takes_body(request.method(), request.uri().path()) {
            return Either::Right(warp::service(api::batches(self.api)).call(request).map(answered).boxed());
        }
        let mut body = None;
        let request = request.map(|incoming| {
            body = has_body.then_some(incoming);
            Empty::<Bytes>::new()
        });
        let mut others = warp::service(api::others(self.api));
        let Some(body) = body else { return Either::Right(others.call(request).map(answered).boxed()) };
        // No other route reads a body. Left unread, hyper would close the connection under the
        // client's next request, so it is taken in first, within limits.
        let answer = async move {
            let (method, path) = (request.method(), request.uri().path());
            let taken = match take_in(body, self.options.body_bytes_max, self.pace(), None).await {
                Ok(taken) => taken,
                Err(problem) => return problem.answer(method).into(),
            };
            if api::counts_by_path(method, path) {
                if taken.bytes > 0 {
                    // It may ask for something else than the path does.
                    return Problem::BodyNotTaken.answer(method).into();
                }
                if let Some(answer) = self.api.count(path, query.as_ref(), None) {
                    return answer;
                }
            }
            answered(others.call(request).await)
        };
        Either::Right(answer.boxed())
    }

    fn pace(&self) -> Pace {
        Pace::new(Duration::from_millis(self.options.header_timeout_ms))
    }

    fn resolve_alias(&self, request: &mut Request<Incoming>) {
        let (method, uri) = (request.method(), request.uri());
        if !api::is_behind_alias(&self.path_alias, method, uri.path()) {
            return;
        }
        let target = uri.query().map_or_else(|| BATCHES.to_owned(), |query| format!("{BATCHES}?{query}"));
        // A path of ours with a query that was valid before.
        if let Ok(target) = Uri::try_from(target) {
            *request.uri_mut() = target;
        }
    }

    /// The dashboard reads forms, so it gets the whole body.
    async fn delegate(&'static self, peer: IpAddr, request: Request<Incoming>) -> Response {
        let bytes_max = self.options.body_bytes_max.min(FORM_BYTES_MAX);
        let (Parts { method, uri, headers, .. }, body) = request.into_parts();
        match take_in(body, bytes_max, self.pace(), Some(self.api.room())).await {
            // The form is small, and its room is needed by bodies that come in.
            Ok(Taken { kept: body, .. }) => {
                self.admin.answer(admin::Request { method, uri, headers, peer, body }).await
            }
            Err(problem) => problem.answer(&method),
        }
    }
}

/// What a filter of warp has answered.
fn answered(answer: Result<Response, Infallible>) -> Answer {
    let mut response = answer.unwrap_or_else(|never| match never {});
    let debt = if response.extensions().is_empty() { None } else { response.extensions_mut().remove::<Debt>() };
    Answer { response, debt }
}

/// A body that was read to its end.
struct Taken {
    bytes: usize,
    /// All of it, or nothing.
    kept: Bytes,
}

/// With a `room` the body is kept.
async fn take_in(body: Incoming, bytes_max: usize, mut pace: Pace, mut room: Option<Room>) -> Result<Taken, Problem> {
    let too_large = Problem::BodyTooLarge { bytes_max };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large);
    }
    let mut frames = Limited::new(body, bytes_max).into_data_stream();
    let (mut bytes, mut kept) = (0, BytesMut::new());
    while let Some(data) = pace.next(&mut frames).await? {
        let data = match data {
            Ok(data) => data,
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large),
            Err(_) => return Err(Problem::BodyBroken),
        };
        bytes += data.len();
        pace.came(data.len());
        if let Some(room) = &mut room {
            if !room.take(data.len()) {
                return Err(Problem::TooManyBodies);
            }
            kept.extend_from_slice(&data);
        }
    }
    Ok(Taken { bytes, kept: kept.freeze() })
}
