//! What of a log is counted, under which names.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// In which format lines are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Each line says so itself: JSON begins with a brace or a quote.
    Auto,
    Common,
    Combined,
    Json,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Path,
    Method,
    Status,
}

/// How a request of an access log is called, such as `{method} {path}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template(Vec<Part>);

impl Template {
    /// `path`, `method-path`, `status`, or a text with `{path}`, `{method}` and `{status}` in it.
    ///
    /// # Errors
    /// What is wrong with it, when it has none of these, or another one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = match text {
            "path" => "{path}",
            "method-path" => "{method} {path}",
            "status" => "{status}",
            other => other,
        };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("a brace that is opened is not closed")?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(match name {
                "path" => Part::Path,
                "method" => Part::Method,
                "status" => Part::Status,
                other => return Err(format!("there is no {{{other}}}; expected {{path}}, {{method}} or {{status}}")),
            });
            rest = after;
        }
        if parts.is_empty() {
            return Err("expected path, method-path, status, or a text with {path}, {method} or {status} in it".into());
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// Whether it is the path and nothing else: then pages are meant.
    #[must_use]
    pub fn is_path(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Path) || *part == Part::Text(String::new()))
    }

    pub(super) fn has_path(&self) -> bool {
        self.0.contains(&Part::Path)
    }

    pub(super) fn fill(&self, name: &mut String, path: &str, method: &str, status: u16) {
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Path => name.push_str(path),
                Part::Method => name.push_str(method),
                // Into a String nothing fails.
                Part::Status => drop(write!(name, "{status:03}")),
            }
        }
    }
}

/// Which status codes are counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    /// A list such as `2xx,304`, or `any`.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn parse(list: &str) -> Result<Self, String> {
        if list == "any" {
            return Ok(Self(vec![(0, 999)]));
        }
        let ranges = list.split(',').map(|text| {
            let range = match text.trim().as_bytes() {
                [class @ b'1'..=b'9', b'x', b'x'] => Some((u16::from(class - b'0') * 100, 99)),
                [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => text.trim().parse().ok().map(|status| (status, 0)),
                _ => None,
            };
            range.map(|(first, more)| (first, first + more))
        });
        let ranges = ranges.collect::<Option<Vec<_>>>();
        ranges.map(Self).ok_or_else(|| "expected any, or a list of codes and classes such as 2xx,304".to_owned())
    }

    pub(super) fn has(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

/// Which methods are counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Methods(Option<Vec<String>>);

impl Methods {
    /// A list such as `GET,POST`, or `any`.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn parse(list: &str) -> Result<Self, String> {
        if list == "any" {
            return Ok(Self(None));
        }
        let methods: Vec<String> = list.split(',').map(|text| text.trim().to_ascii_uppercase()).collect();
        let is_method = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
        if !methods.iter().all(is_method) {
            return Err("expected any, or a list of methods such as GET,POST".into());
        }
        Ok(Self(Some(methods)))
    }

    pub(super) fn has(&self, method: &str) -> bool {
        self.0.as_ref().is_none_or(|methods| methods.iter().any(|known| known == method))
    }
}

/// What an import counts. Another value of any of these makes it another import.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub format: Format,
    pub event: Template,
    /// Stands before each name.
    pub prefix: String,
    pub methods: Methods,
    pub statuses: Statuses,
    /// Whether images, styles, scripts and fonts are counted.
    pub assets: bool,
}

/// What ends with one of these is fetched by pages and is none.
const ASSETS: [&str; 28] = [
    "avif",
    "bmp",
    "css",
    "cur",
    "eot",
    "gif",
    "ico",
    "jpeg",
    "jpg",
    "js",
    "map",
    "mjs",
    "mp3",
    "mp4",
    "ogg",
    "otf",
    "png",
    "svg",
    "tif",
    "tiff",
    "ttf",
    "wasm",
    "wav",
    "webm",
    "webmanifest",
    "webp",
    "woff",
    "woff2",
];

pub(super) fn is_asset(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    ASSETS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

impl Options {
    /// Stands for their meaning.
    pub(super) fn digest(&self) -> [u8; 6] {
        let Self { format, event, prefix, methods, statuses, assets } = self;
        let text = format!("{format:?}\n{event:?}\n{prefix:?}\n{methods:?}\n{statuses:?}\n{assets}");
        let hash = Sha256::digest(text);
        std::array::from_fn(|index| hash[index])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    fn filled(template: &str) -> String {
        let mut name = String::new();
        Template::parse(template).unwrap().fill(&mut name, "/a", "GET", 200);
        name
    }

    #[test]
    fn templates_name_a_request() {
        assert_eq!(filled("path"), "/a");
        assert_eq!(filled("method-path"), "GET /a");
        assert_eq!(filled("status"), "200");
        assert_eq!(filled("web{path}?{status}!"), "web/a?200!");
        for wrong in ["paths", "", "{", "{path", "{host}", "{}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Template::parse("path").unwrap().is_path());
        assert!(!Template::parse("web{path}").unwrap().is_path());
    }

    #[test]
    fn lists_are_read_or_refused() {
        let statuses = Statuses::parse("2xx, 304").unwrap();
        assert_eq!([199, 200, 299, 300, 304].map(|status| statuses.has(status)), [false, true, true, false, true]);
        assert!(Statuses::parse("any").unwrap().has(0));
        for wrong in ["", "2x", "2xx,", "0xx", "20", "2000", "abc"] {
            assert!(Statuses::parse(wrong).is_err(), "{wrong}");
        }
        let methods = Methods::parse("get, POST").unwrap();
        assert_eq!(["GET", "POST", "HEAD"].map(|method| methods.has(method)), [true, true, false]);
        assert!(Methods::parse("any").unwrap().has("BREW"));
        assert!(Methods::parse("GET,").is_err());
    }

    #[test]
    fn an_import_that_an_earlier_version_began_has_the_same_digest() {
        let options = Options {
            format: Format::Auto,
            event: Template::parse("path").unwrap(),
            prefix: String::new(),
            methods: Methods::parse("GET").unwrap(),
            statuses: Statuses::parse("2xx,304").unwrap(),
            assets: false,
        };
        assert_eq!(hex::encode(options.digest()), "6ce0d26386c5");
        let other = Options { prefix: "x".into(), ..options.clone() };
        assert_ne!(other.digest(), options.digest());
    }

    #[test]
    fn assets_are_told_by_their_extension() {
        assert!(is_asset("/a/b.PNG") && is_asset("/favicon.ico"));
        assert!(!is_asset("/a.png/page") && !is_asset("/png") && !is_asset("/robots.txt"));
    }
}
