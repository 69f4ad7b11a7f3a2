//! Around one request: what warp must not see, what nobody reads, and what must not escape.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::{Method, Request};
use tower::Service;
use warp::reply::Response;

use super::answer::ApiError;
use super::query_string::RawQuery;

#[derive(Clone, Copy)]
pub(super) struct BodyLimits {
    pub(super) bytes_max: usize,
    /// For the whole body to arrive.
    pub(super) timeout: Duration,
}

/// Answers one request, whatever happens: a panic becomes one 500.
pub(super) async fn answer<S>(routes: S, limits: BodyLimits, request: Request<Incoming>) -> Result<Response, Infallible>
where
    S: Service<Request<Empty<Bytes>>, Response = Response, Error = Infallible>,
{
    let is_post = request.method() == Method::POST;
    match AssertUnwindSafe(admit(routes, limits, request)).catch_unwind().await {
        Ok(response) => Ok(response),
        Err(panic) => {
            let message = panic.downcast_ref::<&str>().copied();
            let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            tracing::error!(message = message.unwrap_or("no message"), "a handler panicked");
            Ok(ApiError::Panicked.answer(if is_post { &Method::POST } else { &Method::GET }))
        }
    }
}

async fn admit<S>(mut routes: S, limits: BodyLimits, request: Request<Incoming>) -> Response
where
    S: Service<Request<Empty<Bytes>>, Response = Response, Error = Infallible>,
{
    // warp's path filters panic on a target that has no path (`CONNECT host:port`); the absolute
    // form is for proxies.
    let is_path = request.uri().scheme().is_none() && request.uri().path().starts_with('/');
    if !is_path || request.method() == Method::CONNECT {
        return ApiError::BadTarget.answer(request.method());
    }
    let (mut head, body) = request.into_parts();
    // No route reads a body yet. Left unread, hyper would close the connection under the client's
    // next request, so it is taken in first, within limits.
    if !body.is_end_stream()
        && let Err(error) = Box::pin(discard(body, limits)).await
    {
        return error.answer(&head.method);
    }
    if head.uri.query().is_some() {
        head.extensions.insert(RawQuery(head.uri.clone()));
    }
    match routes.call(Request::from_parts(head, Empty::new())).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn discard(body: Incoming, limits: BodyLimits) -> Result<(), ApiError> {
    let too_large = ApiError::BodyTooLarge { bytes_max: limits.bytes_max };
    if body.size_hint().lower() > limits.bytes_max as u64 {
        return Err(too_large);
    }
    let mut body = Limited::new(body, limits.bytes_max);
    let all = async {
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    };
    match tokio::time::timeout(limits.timeout, all).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(_)) => Err(ApiError::BodyBroken),
        Err(_) => Err(ApiError::BodyTimeout),
    }
}
