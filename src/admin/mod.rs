//! The dashboard: pages for superusers under `/admin`, the same as JSON for admin keys under
//! `/api/v1/admin`.
//!
//! Reading order: this file (state, who is let in, who answers), `routes` (the table), `request` and
//! `answer`; who is asking: `session`, `login`, `password`, `throttle`; what pages show: `activity`
//! and `live` (numbers), `chart` and `zone`, `view` (what all pages share), then one page a file.
//!
//! Everything needs a session, or a key where programs ask, unless the table says that it is open.
//! Pages work without script; the one script adds live numbers, hovering and searching while typing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hyper::Method;
use hyper::header::CONTENT_TYPE;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use warp::reply::Response;

use crate::batch::{Batches, Pending};
use crate::domain::EventName;
use crate::node::Node;
use crate::query::Query;
use crate::store::Store;
use crate::store::admin::{Change, Changed};

mod activity;
mod answer;
mod api;
mod assets;
mod chart;
mod event;
mod events;
mod export;
mod keys;
mod live;
mod login;
mod manage;
mod nodes;
mod options;
mod overview;
pub mod password;
mod request;
mod routes;
mod session;
mod status;
mod throttle;
mod told;
mod users;
mod view;
mod zone;

#[cfg(test)]
mod tests;

use answer::Failure;
pub use options::{CookieSecure, Options};
pub use request::Request;
use routes::{Access, Endpoint, Found};
use session::Who;
pub(crate) use users::{COMMAND_LINE, check_name as check_user_name};
use view::Page;

/// The node's clock, as pages need it.
type Clock = Box<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Longest name of a superuser, in bytes.
pub const USER_NAME_BYTES_MAX: usize = 64;

/// How long a change waits for counts of its event that are not in the store yet, and how often it
/// looks.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);
const FLUSH_LOOK: Duration = Duration::from_millis(20);

/// What the pages work with. It lives as long as the process.
pub struct State {
    node: Arc<Node>,
    query: Arc<Query>,
    batches: Arc<Batches>,
    store: Arc<dyn Store>,
    options: Options,
    clock: Clock,
    passwords: password::Passwords,
    throttle: throttle::Throttle,
    remembered: session::Remembered,
    /// Sent to when somebody may not be let in any more.
    access_changed: watch::Sender<()>,
    /// The hash of the secret in the set-up link, while there is one.
    setup: Mutex<Option<[u8; 32]>>,
    activity: activity::Kept,
    status: status::Kept,
    live: live::Live,
    draining: CancellationToken,
}

impl State {
    #[must_use]
    pub fn new(node: &Arc<Node>, options: Options) -> Self {
        let clock = Arc::clone(&node.clock);
        let clock: Clock = Box::new(move || DateTime::from(clock()));
        Self {
            node: Arc::clone(node),
            query: Arc::clone(&node.query),
            batches: Arc::clone(&node.batches),
            store: Arc::clone(&node.store),
            live: live::Live::new(options.streams_max),
            options,
            clock,
            passwords: password::Passwords::default(),
            throttle: throttle::Throttle::default(),
            remembered: session::Remembered::default(),
            access_changed: watch::Sender::new(()),
            setup: Mutex::new(None),
            activity: activity::Kept::default(),
            status: status::Kept::default(),
            draining: CancellationToken::new(),
        }
    }

    /// Gives back the memory of lists and periods that nobody has looked at lately.
    pub fn forget_idle(&self) {
        self.activity.forget_idle();
    }

    /// Ends the live streams, so that their connections can be closed.
    pub fn begin_draining(&self) {
        self.draining.cancel();
    }

    /// The link with which the first superuser is made, if there is none yet. It can be used once,
    /// until the process ends.
    ///
    /// # Errors
    /// When the store can't say whether there is a superuser.
    pub async fn setup_link(&self, address: SocketAddr) -> anyhow::Result<Option<String>> {
        if !self.store.superusers().await?.is_empty() {
            return Ok(None);
        }
        let secret = session::secret().map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
        *self.setup.lock() = Some(session::hash_of(&secret));
        Ok(Some(format!("{}/setup?token={secret}", home(address))))
    }

    /// Answers any request whose path [`is_ours`].
    pub async fn answer(&'static self, request: Request) -> Response {
        let found = routes::find(&request.method, request.uri.path());
        let wants_json = request.is_api() || found.as_ref().is_ok_and(|found| found.access == Access::Program);
        let answered = match found {
            _ if request.has_too_many_parameters() => Err(Failure::TooManyParameters),
            Ok(found) if found.access == Access::Open => self.answer_open(found, &request).await,
            found => self.answer_known(found, &request, wants_json).await,
        };
        answer::seal(answered.unwrap_or_else(|failure| match &failure {
            failure if wants_json => failure.json(),
            Failure::SignedOut { next } => answer::see_other(&format!("/admin/login?next={}", request::encoded(next))),
            failure => failure.page(Page::new(self, &request, None, failure.title())),
        }))
    }

    async fn answer_open(&'static self, found: Found<'_>, request: &Request) -> Result<Response, Failure> {
        if request.method == Method::POST && !request.is_same_origin() {
            return Err(Failure::CrossSite);
        }
        match found.endpoint {
            Endpoint::Asset => assets::asset(found.parameters[0]),
            Endpoint::Login => login::page(self, request).await,
            Endpoint::SignIn => login::sign_in(self, request).await,
            Endpoint::SetUp => login::set_up_page(self, request),
            Endpoint::CreateFirst => login::create_first(self, request).await,
            _ => Err(Failure::NotFound),
        }
    }

    /// Deny by default: also what does not exist is said only to those who are let in.
    async fn answer_known(
        &'static self,
        found: Result<Found<'_>, Failure>,
        request: &Request,
        for_program: bool,
    ) -> Result<Response, Failure> {
        let key = if for_program { self.key(request).await? } else { None };
        let who = match key {
            Some(key) => key,
            None => self.superuser(request).await?.ok_or_else(|| Failure::SignedOut { next: next_of(request) })?,
        };
        let by_cookie = matches!(who, Who::Superuser { .. });
        if by_cookie && request.method == Method::POST && !request.is_same_origin() {
            return Err(Failure::CrossSite);
        }
        let found = match found {
            Ok(found) => found,
            Err(failure) if for_program => return Err(failure),
            Err(failure) => return Ok(failure.page(Page::new(self, request, Some(&who), failure.title()))),
        };
        let answered = self.answer_endpoint(found, request, &who).await;
        match answered {
            Err(failure) if !for_program && !matches!(failure, Failure::SignedOut { .. }) => {
                Ok(failure.page(Page::new(self, request, Some(&who), failure.title())))
            }
            answered => answered,
        }
    }

    async fn answer_endpoint(
        &'static self,
        Found { endpoint, parameters: [first, second], .. }: Found<'_>,
        request: &Request,
        who: &Who,
    ) -> Result<Response, Failure> {
        match endpoint {
            Endpoint::Asset | Endpoint::Login | Endpoint::SignIn | Endpoint::SetUp | Endpoint::CreateFirst => {
                self.answer_open(Found { endpoint, parameters: [first, second], access: Access::Open }, request).await
            }
            Endpoint::SignOut => login::sign_out(self, request).await,
            Endpoint::Preferences => Ok(view::preferences(self, request, who)),
            Endpoint::SetPreferences => view::set_preferences(request),
            Endpoint::Overview => overview::page(self, request, who).await,
            Endpoint::Events => events::page(self, request, who).await,
            Endpoint::Export => export::download(self, request).await,
            Endpoint::Event => event::page(self, request, who, first).await,
            Endpoint::ChangeEvent => manage::change(self, request, who, first, second).await,
            Endpoint::Changes => manage::log_page(self, request, who).await,
            Endpoint::Undo => manage::undo(self, request, who, first).await,
            Endpoint::AcceptStore => status::accept(self, who).await,
            Endpoint::Users => users::page(self, request, who).await,
            Endpoint::AddUser => users::add(self, request, who).await,
            Endpoint::ChangeUser => users::change(self, request, who, first, second).await,
            Endpoint::Keys => keys::page(self, request, who).await,
            Endpoint::CreateKey => keys::create(self, request, who).await,
            Endpoint::RevokeKey => keys::revoke(self, who, first).await,
            Endpoint::Live => live::stream(self, request, who.clone()),
            Endpoint::LiveOnce | Endpoint::ApiStatus => live::once(self, request).await,
            Endpoint::ApiEvents => api::events(self, request).await,
            Endpoint::ApiEvent => api::event(self, first).await,
            Endpoint::ApiChangeEvent => api::change_event(self, request, who, first, second).await,
            Endpoint::ApiChanges => api::changes(self, request).await,
            Endpoint::ApiAcceptStore => status::accept_for_program(self, who).await,
            Endpoint::ApiUndo => api::undo(self, who, first).await,
        }
    }

    /// Makes a change, as whoever asks; returns its number in the log.
    async fn change(&self, change: Change, who: &Who) -> Result<i64, Failure> {
        let event = match &change {
            Change::Describe { event, .. }
            | Change::SetActive { event, .. }
            | Change::Move { from: event, .. }
            | Change::Correct { event, .. }
            | Change::Delete { event }
            | Change::Purge { event, .. } => Some(event.clone()),
            Change::Undo { .. } => None,
        };
        let (catalog, who, now) = (self.query.catalog(), who.name(), (self.clock)());
        let pending = self.batches.pending();
        let mut changed = catalog.change(change.clone(), &who, now).await.map_err(Failure::of_change)?;
        // The store does not know yet what was just counted here for the first time.
        if let (Changed::Refused { .. }, Some(event)) = (&changed, event) {
            let view = catalog.view();
            let names: Vec<_> = view.names_of(view.event(&event)).cloned().collect();
            if names.iter().any(|name| pending.counts(name)) {
                self.wait_committed(&pending, &names).await;
                changed = catalog.change(change, &who, now).await.map_err(Failure::of_change)?;
            }
        }
        match changed {
            Changed::Done { change } => Ok(change),
            Changed::Refused { reason } => Err(Failure::Refused(reason)),
        }
    }

    /// Has what was pending of an event's names committed soon, whatever is counted meanwhile.
    async fn wait_committed(&self, pending: &Pending, names: &[EventName]) {
        self.batches.request_flush();
        let is_pending = || {
            let now = self.batches.pending();
            names.iter().any(|name| now.still_counts(pending, name))
        };
        let committed = async {
            while is_pending() {
                tokio::time::sleep(FLUSH_LOOK).await;
            }
        };
        // A store that is not in time refuses once more, and says why.
        let _ = tokio::time::timeout(FLUSH_PATIENCE, committed).await;
    }
}

/// Whether a path belongs to the dashboard.
#[must_use]
pub fn is_ours(path: &str) -> bool {
    ["/admin", "/api/v1/admin"]
        .into_iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Where the dashboard is, for a person at this machine.
#[must_use]
pub fn home(address: SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}/admin")
}

/// Where to go after the login: the page that was asked for.
fn next_of(request: &Request) -> String {
    let is_page = request.method != Method::POST && request.headers.get(CONTENT_TYPE).is_none();
    let path = if is_page { request.uri.path_and_query().map(|path| path.as_str()) } else { None };
    path.unwrap_or("/admin").to_owned()
}
