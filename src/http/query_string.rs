//! The part of a target after the question mark.

use hyper::Uri;

use super::answer::ApiError;

/// The target of a request that has a query. The front puts it into the request's extensions, since
/// warp's own query filters copy the text or reject where there is none; most requests have none
/// and then pay nothing.
#[derive(Clone, Debug)]
pub(super) struct RawQuery(pub(super) Uri);

/// The parameters, decoded. Unknown ones are ignored: proxies and browsers add theirs.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// # Errors
    /// When one name occurs twice: which value was meant is anybody's guess.
    pub(super) fn parse(query: Option<&RawQuery>) -> Result<Self, ApiError> {
        let text = query.and_then(|RawQuery(uri)| uri.query()).unwrap_or_default();
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(ApiError::DuplicateParameter { name: name.into_owned() });
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(parameters))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
