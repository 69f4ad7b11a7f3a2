//! The part of a target after the question mark.

use hyper::Uri;

use super::problem::Problem;

/// The target of a request that has a query. The front puts it into the request's extensions, since
/// warp's own query filters copy the text or reject where there is none; most requests have none
/// and then pay nothing.
#[derive(Clone, Debug)]
pub(crate) struct RawQuery(pub(crate) Uri);

/// Most parameters of one query. No route has a tenth of it, and comparing each with all others takes the
/// square of their number.
pub(crate) const PARAMETERS_MAX: usize = 32;

/// The parameters, decoded. Unknown ones are ignored: proxies and browsers add theirs.
#[derive(Debug, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// # Errors
    /// When one name occurs twice, since which value was meant is anybody's guess, or when there are more
    /// than [`PARAMETERS_MAX`].
    pub(crate) fn parse(query: Option<&RawQuery>) -> Result<Self, Problem> {
        let text = query.and_then(|RawQuery(uri)| uri.query()).unwrap_or_default();
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(Problem::DuplicateParameter { name: name.into_owned() });
            }
            if parameters.len() == PARAMETERS_MAX {
                return Err(Problem::TooManyParameters);
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(parameters))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(query: &str) -> Result<Parameters, Problem> {
        Parameters::parse(Some(&RawQuery(format!("/x?{query}").parse().unwrap())))
    }

    #[test]
    fn a_query_has_at_most_thirty_two_parameters() {
        let query = |length: usize| (0..length).map(|number| format!("p{number}={number}&")).collect::<String>();
        assert_eq!(parsed(&query(PARAMETERS_MAX)).unwrap().get("p31"), Some("31"));
        assert!(matches!(parsed(&query(PARAMETERS_MAX + 1)), Err(Problem::TooManyParameters)));
        assert!(matches!(parsed(&query(1_000)), Err(Problem::TooManyParameters)));
    }

    #[test]
    fn a_parameter_given_twice_is_refused_by_its_name() {
        assert!(matches!(parsed("a=1&b=2&a=3"), Err(Problem::DuplicateParameter { name }) if name == "a"));
    }
}
