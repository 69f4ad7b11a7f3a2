//! A superuser of the program, made by the set-up link, and an admin key.

use serde_json::Value;

use super::browser::Browser;
use super::{Answer, TestApp, eventually};

pub const USER: &str = "ada";
pub const PASSWORD: &str = "seven green turtles sail north";

pub struct Superuser {
    client: reqwest::Client,
    /// `name=value` of the session.
    cookie: String,
    pub key: String,
}

impl Superuser {
    pub async fn of(app: &TestApp) -> Self {
        let link = app.setup_link().await;
        let token = link.split_once("token=").unwrap().1.to_owned();
        let mut superuser = Self { client: client(), cookie: String::new(), key: String::new() };
        let fields = [("token", &*token), ("user", USER), ("password", PASSWORD), ("repeated", PASSWORD)];
        let answer = superuser.submit(app, "/admin/setup", &fields).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        superuser.cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
        superuser.key = superuser.create_key(app, "test").await;
        superuser
    }

    /// Creates an admin key as the page does, and gives its secret.
    pub async fn create_key(&self, app: &TestApp, label: &str) -> String {
        let answer = self.submit(app, "/admin/keys", &[("label", label), ("days", "30"), ("current", PASSWORD)]).await;
        let (_, rest) = answer.text().split_once(r#"id="secret">"#).expect("the secret");
        rest.split('<').next().unwrap().to_owned()
    }

    /// Tries to sign in from a browser of its own; gives the status.
    pub async fn sign_in(app: &TestApp, user: &str, password: &str) -> u16 {
        let fields = [("user", user), ("password", password)];
        let nobody = Self { client: client(), cookie: String::new(), key: String::new() };
        nobody.submit(app, "/admin/login", &fields).await.status
    }

    /// Submits a form of the dashboard.
    pub async fn submit(&self, app: &TestApp, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.client.post(app.url(path)).header("origin", app.url("")).header("cookie", &self.cookie);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        Answer::of(request.send().await.unwrap()).await.unwrap()
    }

    /// A page of the dashboard.
    pub async fn page(&self, app: &TestApp, path: &str) -> String {
        let answer = app.get_with(path, &[("cookie", &self.cookie)]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text().to_owned()
    }

    pub async fn get(&self, app: &TestApp, path: &str) -> Value {
        let bearer = format!("Bearer {}", self.key);
        let answer = app.get_with(&format!("/api/v1/admin/{path}"), &[("authorization", &bearer)]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()["response"].clone()
    }

    /// Posts to `/api/v1/admin/`; `None` when the program did not answer.
    pub async fn post(&self, app: &TestApp, path: &str, fields: &Value) -> Option<Answer> {
        let request = self.client.post(app.url(&format!("/api/v1/admin/{path}"))).bearer_auth(&self.key);
        Answer::of(request.json(fields).send().await.ok()?).await.ok()
    }

    /// Changes an event and insists on success; gives the number of the change.
    pub async fn change(&self, app: &TestApp, event: &str, action: &str, fields: &Value) -> i64 {
        let answer = self.post(app, &format!("events/{}/{action}", encoded(event)), fields).await.unwrap();
        assert_eq!(answer.status, 200, "{action} {event}: {}", answer.text());
        answer.json()["response"]["change"].as_i64().unwrap()
    }

    /// Signs the browser in without a form.
    pub async fn enter(&self, browser: &Browser) {
        browser.take_cookie(&self.cookie).await;
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

pub fn encoded(event: &str) -> String {
    percent_encoding::utf8_percent_encode(event, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl TestApp {
    /// The link for the first superuser, as it stands on the console.
    pub async fn setup_link(&self) -> String {
        let link = || {
            let said = self.said();
            let at = said.find("http://")?;
            let line = said[at..].lines().find(|line| line.contains("/admin/setup?token="))?.to_owned();
            Some(line[line.find("http://")?..].trim().to_owned())
        };
        eventually("the set-up link to be printed", async || link().is_some()).await;
        link().unwrap()
    }
}
