//! What all pages share: who is signed in, theme, time zone, and how numbers and times are written.

use std::borrow::Cow;

use askama::Template;
use chrono::{DateTime, NaiveDate, Utc};
use hyper::header::{HeaderValue, SET_COOKIE};
use warp::reply::Response;

use super::State;
use super::answer::{Failure, html, see_other};
use super::assets::{ICON, SCRIPT, STYLE};
use super::request::{Request, encoded};
use super::session::Who;
use super::zone::Zone;
use crate::domain::Hour;
use crate::histogram::numbers;

/// The frame around the content of a page.
pub(super) struct Page {
    pub(super) title: String,
    pub(super) user: Option<String>,
    /// `auto`, `light` or `dark`.
    pub(super) theme: &'static str,
    pub(super) zone: Zone,
    pub(super) now: DateTime<Utc>,
    /// The page itself, to come back to after changing a preference; without what was just done.
    pub(super) path: String,
    /// What was just done, and the number of the change if it is one.
    pub(super) notice: Option<&'static str>,
    pub(super) changed: Option<i64>,
    /// This service as the browser addresses it.
    pub(super) origin: String,
}

const THEMES: [&str; 3] = ["auto", "light", "dark"];
const YEAR_S: u32 = 365 * 24 * 3600;
const TEXT_CHARS_IN_LISTS: usize = 160;
/// What lists leave of a text, as HTML, keeps a page of them below 100 kB. Nearly any name
/// fits whole.
const HTML_BYTES_IN_LISTS: usize = 200;

/// What pages say after a redirect. The address only carries the key, so that nobody can put words
/// into our mouth by a link.
const NOTICES: [(&str, &str); 13] = [
    ("changed", "Done."),
    ("undone", "Undone."),
    ("unchanged", "There was nothing to change."),
    ("user-added", "The superuser was added."),
    ("user-disabled", "The superuser is disabled and signed out everywhere."),
    ("user-enabled", "The superuser may sign in again."),
    ("user-deleted", "The superuser was deleted."),
    ("password-changed", "The password was changed; all other sessions were ended."),
    ("signed-out", "All sessions of the superuser were ended."),
    ("key-revoked", "The key was revoked."),
    ("welcome", "Welcome! You are the first superuser."),
    ("signed-off", "You are signed out."),
    (
        "signed-off-here",
        "This browser is signed out. The database could not be told; there the session ends by itself.",
    ),
];

impl Page {
    pub(super) fn new(state: &State, request: &Request, who: Option<&Who>, title: impl Into<String>) -> Self {
        let query = request.query();
        let theme = request.cookie("theme").and_then(|theme| THEMES.into_iter().find(|known| *known == theme));
        Self {
            title: title.into(),
            user: who.map(Who::name),
            theme: theme.unwrap_or("auto"),
            zone: request.cookie("zone").and_then(Zone::parse).unwrap_or_default(),
            now: (state.clock)(),
            path: without_notice(&request.uri),
            notice: NOTICES.into_iter().find(|(key, _)| *key == query.get("notice")).map(|(_, text)| text),
            changed: query.get("change").parse().ok(),
            origin: format!(
                "{}://{}",
                if request.came_by_tls(state.options.trust_proxy) { "https" } else { "http" },
                request.header(hyper::header::HOST).unwrap_or("127.0.0.1:8000")
            ),
        }
    }

    pub(super) fn style_url(&self) -> String {
        STYLE.url()
    }

    pub(super) fn script_url(&self) -> String {
        SCRIPT.url()
    }

    pub(super) fn icon_url(&self) -> String {
        ICON.url()
    }

    /// `page` marks the current entry of the navigation.
    pub(super) fn is_at(&self, prefix: &str) -> bool {
        let path = self.path.split('?').next().unwrap_or_default().trim_end_matches('/');
        path == prefix || prefix != "/admin" && path.starts_with(prefix)
    }

    pub(super) fn zones(&self) -> impl Iterator<Item = &'static str> {
        Zone::names()
    }

    pub(super) fn next_theme(&self) -> &'static str {
        let index = THEMES.iter().position(|theme| *theme == self.theme).unwrap_or(0);
        THEMES[(index + 1) % THEMES.len()]
    }

    /// Whether UTC hours are no hours of the viewer.
    pub(super) fn cuts_hours(&self) -> bool {
        self.zone.cuts_hours(self.now)
    }

    pub(super) fn encoded_path(&self) -> String {
        encoded(&self.path)
    }

    pub(super) fn encoded(&self, text: &str) -> String {
        encoded(text)
    }

    pub(super) fn offset(&self) -> String {
        self.zone.offset(self.now)
    }

    pub(super) fn time(&self, at: &DateTime<Utc>) -> String {
        self.zone.time(*at)
    }

    pub(super) fn hour(&self, hour: &Hour) -> String {
        self.time(&hour.start())
    }

    /// The day of the current hour: where UTC hours are no hours of the viewer, a day begins and ends
    /// with the hour that is counted in.
    pub(super) fn today(&self) -> NaiveDate {
        self.zone.day_of(Hour::containing(self.now))
    }

    /// Counts are known by the hour, so what happened in the current one may be minutes or seconds ago.
    pub(super) fn hours_ago(&self, hour: Hour) -> String {
        if hour >= Hour::containing(self.now) { "this hour".into() } else { self.ago(&hour.start()) }
    }

    /// How long ago, in words.
    pub(super) fn ago(&self, at: &DateTime<Utc>) -> String {
        let seconds = (self.now - *at).num_seconds();
        let (number, unit) = match seconds {
            ..60 => return "just now".into(),
            60..3600 => (seconds / 60, "minute"),
            3600..86_400 => (seconds / 3600, "hour"),
            86_400..5_184_000 => (seconds / 86_400, "day"),
            _ => (seconds / 2_592_000, "month"),
        };
        format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" })
    }
}

/// What the numbers of a page are of. When it changes, they don't just grow: the script asks for the
/// page again.
pub(super) struct AsOf {
    pub(super) hour: Hour,
    /// The version of the catalog.
    pub(super) catalog: u64,
}

impl AsOf {
    /// Take it before reading.
    pub(super) fn now(state: &State, page: &Page) -> Self {
        Self { hour: Hour::containing(page.now), catalog: state.query.catalog().view().catalog().version }
    }
}

/// `1,234,567`.
pub(super) fn grouped(number: impl Into<u128>) -> String {
    numbers::grouped(number.into())
}

/// At most five characters: `1.23M`.
pub(super) fn short(number: impl Into<u128>) -> String {
    numbers::short(number.into())
}

/// As much of a text as a list shows: the whole one is on a page of its own.
pub(super) fn beginning(text: &str) -> Cow<'_, str> {
    cut(text, TEXT_CHARS_IN_LISTS)
}

/// The same of a name.
pub(super) fn listed(name: &str) -> Cow<'_, str> {
    cut(name, usize::MAX)
}

fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    let html_bytes = |c: char| if matches!(c, '<' | '>' | '&' | '"' | '\'') { "&#38;".len() } else { c.len_utf8() };
    let mut bytes = 0;
    let is_over = |(number, (_, c)): &(usize, (usize, char))| {
        bytes += html_bytes(*c);
        *number == chars_max || bytes > HTML_BYTES_IN_LISTS
    };
    match text.char_indices().enumerate().find(is_over) {
        Some((_, (end, _))) => format!("{}…", text[..end].trim_end()).into(),
        None => text.into(),
    }
}

/// How `now` differs from `before`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Trend {
    /// `up`, `down` or `flat`.
    pub(super) direction: &'static str,
    /// Such as `+12.5 %`, `new`, `×31`.
    pub(super) text: String,
}

impl Trend {
    /// `None` where there is nothing to compare.
    pub(super) fn between(before: u64, now: u64) -> Option<Self> {
        let direction = match now.cmp(&before) {
            std::cmp::Ordering::Greater => "up",
            std::cmp::Ordering::Less => "down",
            std::cmp::Ordering::Equal => "flat",
        };
        let text = match (before, now) {
            (0, _) => return None,
            #[allow(clippy::cast_precision_loss)]
            _ => match now as f64 / before as f64 {
                ratio if ratio >= 10.0 => format!("×{ratio:.0}"),
                ratio if (ratio - 1.0).abs() < 0.0005 => "±0 %".to_owned(),
                ratio => format!("{:+.1} %", (ratio - 1.0) * 100.0).replace('-', "−"),
            },
        };
        Some(Self { direction, text })
    }

    /// Of a number that is the sum of `now`, the running hour included, of which `elapsed_s` seconds have
    /// passed. The rule: it is compared with the same hours some whole days earlier, up to the same second.
    /// Counts are known by the hour, so the last hour of that earlier span counts in proportion.
    pub(super) fn so_far(before: &[u64], now: &[u64], elapsed_s: u64) -> Option<Self> {
        let sum = |hours: &[u64]| hours.iter().map(|count| u128::from(*count)).sum::<u128>();
        let before = before
            .split_last()
            .map_or(0, |(last, over)| sum(over) + u128::from(*last) * u128::from(elapsed_s.min(3600)) / 3600);
        let bounded = |sum: u128| u64::try_from(sum).unwrap_or(u64::MAX);
        Self::between(bounded(before), bounded(sum(now)))
    }

    /// Of a name that was never counted before.
    pub(super) fn new_name() -> Self {
        Self { direction: "up", text: "new".into() }
    }
}

fn without_notice(uri: &hyper::Uri) -> String {
    let is_notice = |pair: &&str| pair.starts_with("notice=") || pair.starts_with("change=");
    let pairs: Vec<_> = uri.query().unwrap_or_default().split('&').filter(|pair| !is_notice(pair)).collect();
    format!("{}?{}", uri.path(), pairs.join("&")).trim_end_matches('?').to_owned()
}

/// A name where markup can't isolate it, such as in a title: its direction stays its own.
pub(super) fn isolated(name: &str) -> String {
    format!("\u{2068}{name}\u{2069}")
}

/// The page of an event.
pub(super) fn event_url(name: &str) -> String {
    format!("/admin/events/{}", encoded(name))
}

/// A path below `/admin` to go to, as a form or a link gave it; anything else is the overview.
pub(super) fn local_path(text: &str) -> &str {
    let ours = text == "/admin" || text.starts_with("/admin/") || text.starts_with("/admin?");
    if ours && text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') { text } else { "/admin" }
}

#[derive(Template)]
#[template(path = "preferences.html", config = "src/admin/askama.toml")]
struct PreferencesPage {
    page: Page,
    back: String,
    themes: [&'static str; 3],
}

/// `GET /admin/preferences`
pub(super) fn preferences(state: &State, request: &Request, who: &Who) -> Response {
    let back = local_path(request.query().get("back")).to_owned();
    html(&PreferencesPage { page: Page::new(state, request, Some(who), "Preferences"), back, themes: THEMES })
}

/// Keeps the choice of theme or zone in a cookie.
pub(super) fn set_preferences(request: &Request) -> Result<Response, Failure> {
    let form = request.form();
    let mut response = see_other(local_path(form.get("back")));
    let mut keep = |name: &str, value: &str| {
        let cookie = format!("{name}={value}; Path=/admin; Max-Age={YEAR_S}; HttpOnly; SameSite=Strict");
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    };
    for (name, value) in form.pairs() {
        match name {
            "theme" if THEMES.contains(&value) => keep("theme", value),
            "zone" => match Zone::parse(value) {
                Some(zone) => keep("zone", zone.name()),
                None => return Err(Failure::BadRequest("There is no such time zone.".into())),
            },
            _ => {}
        }
    }
    Ok(response)
}

/// A rate a second.
pub(super) fn rate_text(rate: f64) -> String {
    match rate {
        rate if rate >= 100.0 => {
            // Rates are small and not negative.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let whole = rate.round() as u64;
            short(whole)
        }
        rate if rate >= 10.0 => format!("{rate:.1}"),
        rate if rate > 0.0 => format!("{rate:.2}"),
        _ => "0".into(),
    }
}
