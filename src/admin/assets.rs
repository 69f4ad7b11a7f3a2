//! The style sheet, the script and the icon, compiled in. Their names hold a hash of their content,
//! so browsers may keep them for ever.

use std::sync::LazyLock;

use hyper::header::{CACHE_CONTROL, HeaderValue};
use sha2::{Digest, Sha256};
use warp::reply::Response;

use super::answer::{Failure, bytes};

pub(super) struct Asset {
    name: String,
    content_type: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(stem: &str, extension: &str, content_type: &'static str, content: &'static str) -> Self {
        let hash = hex::encode(&Sha256::digest(content)[..8]);
        Self { name: format!("{stem}-{hash}.{extension}"), content_type, content }
    }

    pub(super) fn url(&self) -> String {
        format!("/admin/assets/{}", self.name)
    }
}

pub(super) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dashboard", "css", "text/css; charset=utf-8", include_str!("assets/dashboard.css")));
pub(super) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("dashboard", "js", "text/javascript; charset=utf-8", include_str!("assets/dashboard.js"))
});
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));

pub(super) fn asset(name: &str) -> Result<Response, Failure> {
    let asset = [&*STYLE, &*SCRIPT, &*ICON].into_iter().find(|asset| asset.name == name).ok_or(Failure::NotFound)?;
    let mut response = bytes(asset.content_type, asset.content);
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(CACHE_CONTROL, forever);
    Ok(response)
}
