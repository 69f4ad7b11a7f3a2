//! A day of one event as a picture (or as JSON).
//!
//! The picture is a function of what it shows, so its entity tag is a hash of the content: known
//! before anything is drawn, the same on every node, and the key of the cache.

use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS};
use sha2::{Digest, Sha256};
use warp::reply::Response;

use super::Api;
use super::accept::Form;
use crate::domain::{Day, EventName};
use crate::histogram::{Format, Series, Size, render};
use crate::web::conditional::{Stands, is_known, not_modified, tagged};
use crate::web::problem::{Problem, success};
use crate::web::query_string::{Parameters, RawQuery};

/// Rendered pictures kept, in bytes: some hundred of usual size.
const CACHE_BYTES_MAX: u64 = 8 << 20;
/// A picture that nobody asked for so long is given back.
const CACHE_IDLE: Duration = Duration::from_secs(600);

/// The first half of a SHA-256 over all that the answer shows.
pub(super) type Tag = [u8; 16];

pub(super) fn cache() -> moka::sync::Cache<Tag, Bytes> {
    moka::sync::Cache::builder()
        .weigher(|_, picture: &Bytes| u32::try_from(picture.len()).unwrap_or(u32::MAX))
        .max_capacity(CACHE_BYTES_MAX)
        .time_to_idle(CACHE_IDLE)
        .build()
}

/// `GET /api/events/histogram/{event}/{YYYYMMDD}`
pub(super) async fn histogram(
    api: &'static Api,
    event: &str,
    day: &str,
    query: Option<RawQuery>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    // What is no name was never counted.
    let event = EventName::from_path_segment(event).map_err(|_| Problem::UnknownEvent)?;
    let day = Day::parse(day).ok_or(Problem::BadDay)?;
    let parameters = Parameters::parse(query.as_ref())?;
    let form = match parameters.get("format") {
        Some(name) => Form::named(name)?,
        None => Form::negotiated(headers),
    };
    let size = size(&parameters)?;
    let series = api.query.day(&event, day).await?.ok_or(Problem::UnknownEvent)?;
    let tag = tag(&series, form, size);
    let text = hex::encode(tag);
    let response = match form {
        _ if is_known(headers, &text) => not_modified(),
        Form::Json => success(&series.to_json()),
        Form::Picture(format) => picture_response(picture(api, tag, series, size, format).await?, format),
    };
    let mut response = tagged(response, &text, Stands::ForContent);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

fn size(parameters: &Parameters) -> Result<Size, Problem> {
    let side = |name: &str, default: u32| match parameters.get(name) {
        None => Ok(default),
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            // Too many digits are too many pixels: the limits of Size refuse them.
            Ok(text.parse().unwrap_or(u32::MAX))
        }
        Some(_) => Err(Problem::BadSize(format!("{name} is a number of pixels"))),
    };
    let default = Size::default();
    let (width, height) = (side("width", default.width())?, side("height", default.height())?);
    Size::new(width, height).map_err(|error| Problem::BadSize(error.to_string()))
}

fn tag(series: &Series, form: Form, size: Size) -> Tag {
    let mut hash = Sha256::new();
    // The version stands for the way of drawing.
    for text in [env!("CARGO_PKG_VERSION"), form.content_type(), series.event.as_str()] {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    hash.update(series.day.range().first.number().to_le_bytes());
    hash.update(size.width().to_le_bytes());
    hash.update(size.height().to_le_bytes());
    for count in series.counts {
        hash.update(count.to_le_bytes());
    }
    let mut tag = Tag::default();
    tag.copy_from_slice(&hash.finalize()[..16]);
    tag
}

/// From the cache, or drawn off the async threads, few at a time; whoever asks for the same picture
/// meanwhile waits for the one drawing.
async fn picture(api: &'static Api, tag: Tag, series: Series, size: Size, format: Format) -> Result<Bytes, Problem> {
    if let Some(picture) = api.pictures.get(&tag) {
        return Ok(picture);
    }
    let permit = api.renders.take().await?;
    let drawn = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        api.pictures.try_get_with(tag, || render(&series, size, format).map(Bytes::from))
    });
    match drawn.await {
        Ok(Ok(picture)) => Ok(picture),
        Ok(Err(error)) => {
            tracing::error!(%error, "a histogram could not be drawn");
            Err(Problem::Render)
        }
        Err(error) => {
            tracing::error!(%error, "drawing a histogram panicked");
            Err(Problem::Render)
        }
    }
}

fn picture_response(picture: Bytes, format: Format) -> Response {
    let mut response = Response::new(picture.into());
    let mut add = |name, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
    add(CONTENT_TYPE, format.content_type());
    if format == Format::Svg {
        // An SVG is a document that could run scripts when opened by itself.
        add(CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'");
        add(X_CONTENT_TYPE_OPTIONS, "nosniff");
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn series(event: &str, last: u64) -> Series {
        let mut counts = [0; 24];
        counts[23] = last;
        Series { event: EventName::parse(event).unwrap(), day: Day::parse("20200911").unwrap(), counts }
    }

    #[test]
    fn the_tag_changes_with_everything_that_is_shown() {
        let png = Form::Picture(Format::Png);
        let (small, usual) = (Size::new(400, 300).unwrap(), Size::default());
        let tags = [
            tag(&series("login", 1), png, usual),
            tag(&series("login", 2), png, usual),
            tag(&series("logout", 1), png, usual),
            tag(&series("login", 1), png, small),
            tag(&series("login", 1), Form::Json, usual),
        ];
        let distinct: std::collections::BTreeSet<_> = tags.iter().collect();
        assert_eq!(distinct.len(), tags.len());
        assert_eq!(tags[0], tag(&series("login", 1), png, usual));
    }
}
