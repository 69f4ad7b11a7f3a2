//! Around one request: what warp must not see, what nobody reads, and what must not escape.

use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{Method, Request};
use tower::Service;
use warp::reply::Response;

use super::answer::ApiError;
use super::query_string::RawQuery;
use super::{State, count, counts_by_path, takes_body};
use crate::admin;

/// Forms of the dashboard are small.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// warp's filters as a service.
pub(super) trait Routes<B>: Service<Request<B>, Response = Response, Error = Infallible> {}

impl<B, S: Service<Request<B>, Response = Response, Error = Infallible>> Routes<B> for S {}

/// What holds for every request.
pub(super) struct Rules {
    pub(super) state: &'static State,
    pub(super) body_bytes_max: usize,
    /// For the whole body to arrive.
    pub(super) body_timeout: Duration,
}

/// What hyper polls for a request. Its size is copied for each, so what is not answered at once is on
/// the heap.
type Answering = Either<Ready<Result<Response, Infallible>>, BoxFuture<'static, Result<Response, Infallible>>>;

/// Answers one request, whatever happens: a panic becomes one 500. `batches` takes the requests whose
/// body matters, `others` the rest.
pub(super) fn answer<B, O>(
    routes: (B, O),
    peer: IpAddr,
    rules: &'static Rules,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>>
where
    B: Routes<Incoming, Future: Send + 'static> + Send + 'static,
    O: Routes<Empty<Bytes>, Future: Send> + Send + 'static,
{
    let is_post = request.method() == Method::POST;
    let stamp = rules.state.cors.stamp(&request);
    let panicked = move |panic: Box<dyn Any + Send>| {
        let message = panic.downcast_ref::<&str>().copied();
        let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(message = message.unwrap_or("no message"), "a handler panicked");
        Ok(ApiError::Panicked.answer(if is_post { &Method::POST } else { &Method::GET }))
    };
    let finish = move |answer: Result<Response, Infallible>| {
        answer.map(|mut answer| {
            stamp.into_iter().for_each(|stamp| stamp.put(&mut answer));
            answer
        })
    };
    let answering = std::panic::catch_unwind(AssertUnwindSafe(|| admit(routes, peer, rules, request)));
    match answering.unwrap_or_else(|panic| Either::Left(ready(panicked(panic)))) {
        Either::Left(answer) => Either::Left(ready(finish(answer.into_inner()))),
        Either::Right(answer) => {
            let answer = AssertUnwindSafe(answer).catch_unwind();
            Either::Right(answer.map(move |answer| finish(answer.unwrap_or_else(panicked))))
        }
    }
}

fn admit<B, O>(
    (mut batches, mut others): (B, O),
    peer: IpAddr,
    rules: &'static Rules,
    mut request: Request<Incoming>,
) -> Answering
where
    B: Routes<Incoming, Future: Send + 'static>,
    O: Routes<Empty<Bytes>, Future: Send> + Send + 'static,
{
    // warp's path filters panic on a target that has no path (`CONNECT host:port`); the absolute
    // form is for proxies.
    let is_path = request.uri().scheme().is_none() && request.uri().path().starts_with('/');
    if !is_path || request.method() == Method::CONNECT {
        return Either::Left(ready(Ok(ApiError::BadTarget.answer(request.method()))));
    }
    let query = request.uri().query().is_some().then(|| RawQuery(request.uri().clone()));
    let has_body = !request.body().is_end_stream();
    if request.method() == Method::POST
        && !has_body
        && let Some(answer) = count(rules.state, request.uri().path(), query.as_ref())
    {
        return Either::Left(ready(Ok(answer)));
    }
    if admin::is_ours(request.uri().path()) {
        return Either::Right(delegate(peer, rules, request).map(Ok).boxed());
    }
    if let Some(query) = query {
        request.extensions_mut().insert(query);
    }
    if has_body && takes_body(request.method(), request.uri().path()) {
        return Either::Right(batches.call(request).boxed());
    }
    let mut body = None;
    let request = request.map(|incoming| {
        body = has_body.then_some(incoming);
        Empty::new()
    });
    match body {
        None => Either::Right(others.call(request).boxed()),
        // No other route reads a body. Left unread, hyper would close the connection under the
        // client's next request, so it is taken in first, within limits.
        Some(body) => Either::Right(
            async move {
                match take_in(body, rules.body_bytes_max, rules.body_timeout, false).await {
                    // It may ask for something else than the path does.
                    Ok(taken) if taken.bytes > 0 && counts_by_path(request.method(), request.uri().path()) => {
                        Ok(ApiError::BodyNotTaken.answer(request.method()))
                    }
                    Ok(_) => others.call(request).await,
                    Err(error) => Ok(error.answer(request.method())),
                }
            }
            .boxed(),
        ),
    }
}

/// The dashboard reads forms, so it gets the whole body.
async fn delegate(peer: IpAddr, rules: &'static Rules, request: Request<Incoming>) -> Response {
    let bytes_max = rules.body_bytes_max.min(FORM_BYTES_MAX);
    let (Parts { method, uri, headers, .. }, body) = request.into_parts();
    match take_in(body, bytes_max, rules.body_timeout, true).await {
        Ok(Taken { kept: body, .. }) => {
            rules.state.admin.answer(admin::Request { method, uri, headers, peer, body }).await
        }
        Err(error) => error.answer(&method),
    }
}

/// A body that was read to its end.
struct Taken {
    bytes: usize,
    /// All of it, or nothing.
    kept: Bytes,
}

async fn take_in(body: Incoming, bytes_max: usize, patience: Duration, keep: bool) -> Result<Taken, ApiError> {
    let too_large = ApiError::BodyTooLarge { bytes_max };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large);
    }
    let mut body = Limited::new(body, bytes_max);
    let all = async {
        let (mut bytes, mut kept) = (0, BytesMut::new());
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            bytes += data.len();
            if keep {
                kept.extend_from_slice(&data);
            }
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Taken { bytes, kept: kept.freeze() })
    };
    match tokio::time::timeout(patience, all).await {
        Ok(Ok(taken)) => Ok(taken),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(_)) => Err(ApiError::BodyBroken),
        Err(_) => Err(ApiError::BodyTimeout),
    }
}
