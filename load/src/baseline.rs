//! The yardstick: the least that an HTTP server can do. hyper's HTTP/1.1 with a static answer, the
//! same bytes that the service answers to a `POST`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const ANSWER: &[u8] = br#"{"status":true,"response":201}"#;

/// Listens on `address` and says on which it does; port 0 takes a free one.
///
/// # Errors
/// If the address is taken.
pub async fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until `lifetime` is over.
pub async fn serve(listener: TcpListener, lifetime: Duration) {
    // The time-out ends the loop; connections end with the program.
    let _ = tokio::time::timeout(lifetime, accept(listener)).await;
}

async fn accept(listener: TcpListener) {
    loop {
        // Accepting fails when a client is gone already, or when descriptors run out for a moment.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            let connection = http.pipeline_flush(true).serve_connection(TokioIo::new(stream), service_fn(answer));
            // A client that goes away is no news.
            let _ = connection.await;
        });
    }
}

async fn answer(_: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
