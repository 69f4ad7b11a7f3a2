//! The table of all routes of the dashboard. What is not in it needs a session too, to be told so.

use hyper::Method;

use super::answer::Failure;

/// Who is let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Open,
    /// A superuser, by the session's cookie.
    Page,
    /// A superuser or an admin key; failures are JSON.
    Program,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    Asset,
    Login,
    SignIn,
    SetUp,
    CreateFirst,
    SignOut,
    Preferences,
    SetPreferences,
    Overview,
    Events,
    Export,
    Event,
    ChangeEvent,
    Changes,
    Undo,
    AcceptStore,
    Users,
    AddUser,
    ChangeUser,
    Keys,
    CreateKey,
    RevokeKey,
    Live,
    LiveOnce,
    ApiStatus,
    ApiEvents,
    ApiEvent,
    ApiChangeEvent,
    ApiChanges,
    ApiUndo,
    ApiAcceptStore,
}

/// GET routes answer HEAD as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Get,
    Post,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) verb: Verb,
    /// Segments in braces take any text.
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) endpoint: Endpoint,
}

const fn open(verb: Verb, path: &'static str, endpoint: Endpoint) -> Route {
    Route { verb, path, access: Access::Open, endpoint }
}

const fn page(verb: Verb, path: &'static str, endpoint: Endpoint) -> Route {
    Route { verb, path, access: Access::Page, endpoint }
}

const fn program(verb: Verb, path: &'static str, endpoint: Endpoint) -> Route {
    Route { verb, path, access: Access::Program, endpoint }
}

pub(super) const ROUTES: [Route; 31] = [
    open(Verb::Get, "/admin/assets/{file}", Endpoint::Asset),
    open(Verb::Get, "/admin/login", Endpoint::Login),
    open(Verb::Post, "/admin/login", Endpoint::SignIn),
    open(Verb::Get, "/admin/setup", Endpoint::SetUp),
    open(Verb::Post, "/admin/setup", Endpoint::CreateFirst),
    page(Verb::Get, "/admin", Endpoint::Overview),
    page(Verb::Post, "/admin/logout", Endpoint::SignOut),
    page(Verb::Get, "/admin/preferences", Endpoint::Preferences),
    page(Verb::Post, "/admin/preferences", Endpoint::SetPreferences),
    page(Verb::Get, "/admin/events", Endpoint::Events),
    page(Verb::Get, "/admin/export", Endpoint::Export),
    page(Verb::Get, "/admin/events/{event}", Endpoint::Event),
    page(Verb::Post, "/admin/events/{event}/{action}", Endpoint::ChangeEvent),
    page(Verb::Get, "/admin/changes", Endpoint::Changes),
    page(Verb::Post, "/admin/changes/{change}/undo", Endpoint::Undo),
    page(Verb::Post, "/admin/store/accept", Endpoint::AcceptStore),
    page(Verb::Get, "/admin/users", Endpoint::Users),
    page(Verb::Post, "/admin/users", Endpoint::AddUser),
    page(Verb::Post, "/admin/users/{user}/{action}", Endpoint::ChangeUser),
    page(Verb::Get, "/admin/keys", Endpoint::Keys),
    page(Verb::Post, "/admin/keys", Endpoint::CreateKey),
    page(Verb::Post, "/admin/keys/{key}/revoke", Endpoint::RevokeKey),
    program(Verb::Get, "/admin/live", Endpoint::Live),
    program(Verb::Get, "/admin/live.json", Endpoint::LiveOnce),
    program(Verb::Get, "/api/v1/admin/status", Endpoint::ApiStatus),
    program(Verb::Get, "/api/v1/admin/events", Endpoint::ApiEvents),
    program(Verb::Get, "/api/v1/admin/events/{event}", Endpoint::ApiEvent),
    program(Verb::Post, "/api/v1/admin/events/{event}/{action}", Endpoint::ApiChangeEvent),
    program(Verb::Get, "/api/v1/admin/changes", Endpoint::ApiChanges),
    program(Verb::Post, "/api/v1/admin/changes/{change}/undo", Endpoint::ApiUndo),
    program(Verb::Post, "/api/v1/admin/store/accept", Endpoint::ApiAcceptStore),
];

/// The route of a request, and the segments in braces, not yet percent-decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'p> {
    pub(super) endpoint: Endpoint,
    pub(super) access: Access,
    pub(super) parameters: [&'p str; 2],
}

/// # Errors
/// When there is no such path, or it does not take the method.
pub(super) fn find<'p>(method: &Method, path: &'p str) -> Result<Found<'p>, Failure> {
    let (mut get, mut post) = (false, false);
    for route in &ROUTES {
        let Some(parameters) = route.matches(path) else { continue };
        let takes = match route.verb {
            Verb::Get => method == Method::GET || method == Method::HEAD,
            Verb::Post => method == Method::POST,
        };
        if takes {
            return Ok(Found { endpoint: route.endpoint, access: route.access, parameters });
        }
        match route.verb {
            Verb::Get => get = true,
            Verb::Post => post = true,
        }
    }
    Err(match (get, post) {
        (false, false) => Failure::NotFound,
        (true, false) => Failure::MethodNotAllowed { allow: "GET, HEAD" },
        (false, true) => Failure::MethodNotAllowed { allow: "POST" },
        (true, true) => Failure::MethodNotAllowed { allow: "GET, HEAD, POST" },
    })
}

impl Route {
    fn matches<'p>(&self, path: &'p str) -> Option<[&'p str; 2]> {
        let mut parameters = [""; 2];
        let mut found = 0;
        let mut segments = path.strip_suffix('/').unwrap_or(path).split('/');
        for expected in self.path.split('/') {
            let segment = segments.next()?;
            if expected.starts_with('{') {
                parameters[found] = segment;
                found += 1;
            } else if segment != expected {
                return None;
            }
        }
        segments.next().is_none().then_some(parameters)
    }
}
