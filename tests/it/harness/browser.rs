//! Real Chromium, driven by one chromedriver that is gone with the test process however that ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use thirtyfour::common::config::WebDriverConfig;
use thirtyfour::extensions::query::ElementPollerWithTimeout;
use thirtyfour::prelude::*;
use thirtyfour::{ChromeCapabilities, LoggingPrefsLogLevel};

use super::{PATIENCE, TestApp, eventually, packages};

/// Starts chromedriver and ends it, with every browser of its folder, when the pipe on standard input
/// closes, which the kernel does when the test process is gone. Arguments: the folder, then the command.
const KEEPER: &str = r#"
folder=$1
shift
exec 3<&0
"$@" < /dev/null 2> /dev/null 3<&- &
driver=$!
exec > /dev/null 2>&1
read -r _ <&3
kill -KILL $driver
for process in /proc/[0-9]*; do
    grep -qaF -e "=$folder/" "$process/cmdline" && kill -KILL "${process#/proc/}"
done
wait $driver
rm -rf "$folder"
"#;

/// No calls home, and no sandbox or shared memory that a container may lack.
const ARGUMENTS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--window-size=1280,900",
    "--host-resolver-rules=MAP tracker.example 127.0.0.1",
];

struct Programs {
    chromium: PathBuf,
    chromedriver: PathBuf,
}

impl Programs {
    fn find() -> Option<Self> {
        let more = ["/usr/lib/chromium-browser", "/usr/lib/chromium", "/snap/bin"].map(PathBuf::from);
        // Some build machines say where theirs is.
        let told = std::env::var_os("CHROMEWEBDRIVER").map(PathBuf::from);
        let folders = packages::folders(more.into_iter().chain(told));
        let find = |names: &[&str]| {
            let paths = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
            paths.into_iter().find(|path| path.is_file())
        };
        let chromium = find(&["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"])?;
        Some(Self { chromium, chromedriver: find(&["chromedriver"])? })
    }
}

struct Driver {
    url: String,
    chromium: PathBuf,
    folder: PathBuf,
    _keeper: Child,
    _lifeline: ChildStdin,
}

impl Driver {
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Driver> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        // Without any font there is nothing to look at, and no width to speak of.
        let wanted = ["chromium", "chromium-driver", "fonts-dejavu-core"];
        let Programs { chromium, chromedriver } = packages::needed(&wanted, Programs::find);
        // The keeper removes it.
        let folder = tempfile::Builder::new().prefix("event-tracker-browser").tempdir().unwrap().keep();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&folder)
            .arg(chromedriver)
            .arg("--port=0")
            .current_dir("/")
            .env("HOME", &folder)
            .env("TMPDIR", &folder)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            // Its own group keeps Ctrl-C away.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lifeline = keeper.stdin.take().unwrap();
        let mut lines = BufReader::new(keeper.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("chromedriver says its port");
        // Kept open: a closed pipe would end it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { url: format!("http://127.0.0.1:{port}"), chromium, folder, _keeper: keeper, _lifeline: lifeline }
    }
}

/// One window with a profile of its own.
pub struct Browser {
    driver: WebDriver,
    /// `http://host:port` of the program.
    home: String,
    allowed: Mutex<Vec<&'static str>>,
}

/// Runs a story in a browser on the pages of `app`. Whatever the console complains of fails it.
pub async fn in_browser(app: &TestApp, story: impl AsyncFnOnce(&Browser)) {
    in_browser_at(app.url(""), story).await;
}

/// The same under another host name than 127.0.0.1, which alone passes for trustworthy without TLS.
pub async fn in_browser_over_plain_http(app: &TestApp, story: impl AsyncFnOnce(&Browser)) {
    in_browser_at(app.url("").replace("127.0.0.1", "tracker.example"), async |browser| {
        // Without TLS, this header is ignored with a complaint.
        browser.allow("Cross-Origin-Opener-Policy");
        story(browser).await;
    })
    .await;
}

/// The same for a story in which `app` is killed and comes back, at its address.
pub async fn in_browser_at(home: String, story: impl AsyncFnOnce(&Browser)) {
    let browser = Browser::start(home).await;
    if let Err(panic) = AssertUnwindSafe(story(&browser)).catch_unwind().await {
        eprintln!("--- the browser was at {}\n{}\n---", browser.path().await, browser.text("main").await);
        browser.screenshot("failed").await;
        resume_unwind(panic);
    }
    browser.end().await;
}

impl Browser {
    async fn start(home: String) -> Self {
        static PROFILES: AtomicUsize = AtomicUsize::new(0);
        let driver = tokio::task::spawn_blocking(Driver::shared).await.unwrap();
        let profile = driver.folder.join(format!("profile-{}", PROFILES.fetch_add(1, Ordering::Relaxed)));
        let mut wanted = ChromeCapabilities::new();
        wanted.set_binary(driver.chromium.to_str().unwrap()).unwrap();
        wanted.set_browser_log_level(LoggingPrefsLogLevel::All).unwrap();
        for argument in ARGUMENTS {
            wanted.add_arg(argument).unwrap();
        }
        wanted.add_arg(&format!("--user-data-dir={}/", profile.display())).unwrap();
        let poller = ElementPollerWithTimeout::new(PATIENCE, Duration::from_millis(50));
        let config = WebDriverConfig::builder().poller(std::sync::Arc::new(poller)).build().unwrap();
        let driver = WebDriver::builder(&driver.url, wanted).request_timeout(2 * PATIENCE).await.unwrap();
        driver.set_config(config);
        driver.set_page_load_timeout(PATIENCE).await.unwrap();
        driver.set_script_timeout(PATIENCE).await.unwrap();
        Self { driver, home, allowed: Mutex::new(Vec::new()) }
    }

    async fn end(self) {
        let entries = self.driver.browser_log().await.unwrap();
        let allowed = self.allowed.into_inner();
        let is_bad = |entry: &thirtyfour::BrowserLogEntry| {
            let is_violation = entry.message.contains("Content Security Policy");
            (is_violation || entry.level == "SEVERE") && !allowed.iter().any(|part| entry.message.contains(part))
        };
        let bad: Vec<_> = entries.into_iter().filter(is_bad).map(|entry| entry.message).collect();
        assert!(bad.is_empty(), "the console complains: {bad:#?}");
        self.driver.quit().await.unwrap();
    }

    /// A complaint of the console that belongs to the story, such as a failed login's status.
    pub fn allow(&self, part: &'static str) {
        self.allowed.lock().push(part);
    }

    pub async fn open(&self, path: &str) {
        self.driver.goto(format!("{}{path}", self.home)).await.unwrap();
    }

    /// Opens what is somewhere else.
    pub async fn open_url(&self, url: &str) {
        self.driver.goto(url).await.unwrap();
    }

    pub async fn back(&self) {
        self.driver.back().await.unwrap();
    }

    /// Path and query.
    pub async fn path(&self) -> String {
        let url = self.driver.current_url().await.unwrap();
        url[url::Position::BeforePath..].to_owned()
    }

    /// Waits for an element that can be seen.
    pub async fn see(&self, css: &str) -> WebElement {
        let found = self.driver.query(By::Css(css)).and_displayed().first().await;
        found.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    pub async fn click(&self, css: &str) {
        let clicked = self.driver.query(By::Css(css)).and_clickable().first().await.unwrap().click().await;
        clicked.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Clicks what leads to another page, and waits for that.
    pub async fn submit(&self, css: &str) {
        self.run("window.isOld = true", Vec::new()).await;
        self.click(css).await;
        let is_new = "return !window.isOld && document.readyState === 'complete'";
        eventually("another page", async || {
            let answer = self.driver.execute(is_new, Vec::new()).await;
            answer.is_ok_and(|is_new| is_new.json() == &Value::Bool(true))
        })
        .await;
    }

    /// Types into a field, in place of what it holds.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.see(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Sets a field as a picker does: dates and selections are typed differently in each country.
    pub async fn pick(&self, css: &str, value: &str) {
        let script = "const [css, value] = arguments; const field = document.querySelector(css); field.value = value; \
                      for (const type of ['input', 'change']) field.dispatchEvent(new Event(type, { bubbles: true }));";
        self.see(css).await;
        self.driver.execute(script, vec![css.into(), value.into()]).await.unwrap();
    }

    /// Presses a key on whatever has the focus.
    pub async fn press(&self, key: impl Into<char>) {
        self.driver.action_chain().send_keys(String::from(key.into())).perform().await.unwrap();
    }

    /// Drags over an element with the mouse, between two shares of its width.
    pub async fn drag(&self, css: &str, from: f64, to: f64) {
        let place = self.see(css).await;
        place.scroll_into_view().await.unwrap();
        let size = place.rect().await.unwrap();
        // Offsets count from the middle.
        let offset = |share: f64| ((share - 0.5) * size.width) as i64;
        let chain = self.driver.action_chain().move_to_element_with_offset(&place, offset(from), 0).click_and_hold();
        chain.move_to_element_with_offset(&place, offset(to), 0).release().perform().await.unwrap();
    }

    /// Points at an element with the mouse, at a share of its width.
    pub async fn hover(&self, css: &str, share: f64) {
        let place = self.see(css).await;
        place.scroll_into_view().await.unwrap();
        let offset = ((share - 0.5) * place.rect().await.unwrap().width) as i64;
        self.driver.action_chain().move_to_element_with_offset(&place, offset, 0).perform().await.unwrap();
    }

    /// Touches an element with a finger, at a share of its width.
    pub async fn tap(&self, css: &str, share: f64) {
        let script = "const element = document.querySelector(arguments[0]); element.scrollIntoView({ block: 'center' }); \
                      const { x, y, width, height } = element.getBoundingClientRect(); \
                      return [x + width * arguments[1], y + height / 2]";
        self.see(css).await;
        let place = self.run(script, vec![css.into(), share.into()]).await;
        let touch = |kind: &str, points: Value| json!({ "type": kind, "touchPoints": points });
        let point = json!([{ "x": place[0], "y": place[1] }]);
        self.devtools("Input.dispatchTouchEvent", touch("touchStart", point)).await;
        self.devtools("Input.dispatchTouchEvent", touch("touchEnd", json!([]))).await;
    }

    /// What was copied last.
    pub async fn copied(&self) -> String {
        let script = "navigator.clipboard.readText().then(arguments[0], (error) => arguments[0](String(error)))";
        self.run_async(script, Vec::new()).await.as_str().unwrap_or_default().to_owned()
    }

    /// Lets pages use the clipboard, which a person would be asked for.
    pub async fn permit_copying(&self) {
        let permissions = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
        self.devtools("Browser.grantPermissions", permissions).await;
    }

    /// Whether the network is there.
    pub async fn connect(&self, is_connected: bool) {
        let conditions =
            json!({ "offline": !is_connected, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        self.devtools("Network.enable", json!({})).await;
        self.devtools("Network.emulateNetworkConditions", conditions).await;
    }

    /// From the next page on, what a page puts off for a minute comes after a second.
    pub async fn hurry(&self) {
        let source = "const later = setTimeout; \
                      window.setTimeout = (call, ms, ...rest) => later(call, ms < 60000 ? ms : ms / 60, ...rest)";
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": source })).await;
    }

    /// Requests to such addresses fail from now on.
    pub async fn block(&self, pattern: &str) {
        self.devtools("Network.enable", json!({})).await;
        self.devtools("Network.setBlockedURLs", json!({ "urls": [pattern] })).await;
    }

    /// Where the browser believes to be.
    pub async fn travel(&self, zone: &str) {
        self.devtools("Emulation.setTimezoneOverride", json!({ "timezoneId": zone })).await;
    }

    /// The text of an element, seen or not; empty where there is none.
    pub async fn text(&self, css: &str) -> String {
        let text = self.run("return document.querySelector(arguments[0])?.textContent ?? ''", vec![css.into()]).await;
        text.as_str().unwrap_or_default().trim().to_owned()
    }

    /// The texts of all such elements.
    pub async fn texts(&self, css: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent.trim())";
        serde_json::from_value(self.run(script, vec![css.into()]).await).unwrap()
    }

    pub async fn count(&self, css: &str) -> usize {
        self.texts(css).await.len()
    }

    /// Waits for a text.
    pub async fn shows(&self, css: &str, text: &str) {
        let what = format!("{css} to show {text}");
        eventually(&what, async || self.text(css).await.contains(text)).await;
    }

    pub async fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        let returned = self.driver.execute(script, arguments).await;
        returned.unwrap_or_else(|error| panic!("{script}: {error}")).json().clone()
    }

    /// Runs a script that calls its last argument when it is done.
    pub async fn run_async(&self, script: &str, arguments: Vec<Value>) -> Value {
        let returned = self.driver.execute_async(script, arguments).await;
        returned.unwrap_or_else(|error| panic!("{script}: {error}")).json().clone()
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let answered = self.driver.cdp().send_raw(command, parameters).await;
        answered.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// `name=value`, as a `Set-Cookie` of the program began.
    pub async fn take_cookie(&self, cookie: &str) {
        let (name, value) = cookie.split_once('=').unwrap();
        let cookie = json!({ "name": name, "value": value, "url": self.home, "httpOnly": true, "sameSite": "Lax" });
        self.devtools("Network.setCookie", cookie).await;
    }

    /// The pages' own scripts do not run any more.
    pub async fn disable_script(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    }

    /// Whether the pages' own script has run on this one.
    pub async fn is_scripted(&self) -> bool {
        self.count("html.script").await > 0
    }

    pub async fn prefer(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// A phone in pixels of its own; 0 for the window itself.
    pub async fn resize(&self, width: u32, height: u32) {
        if width == 0 {
            self.devtools("Emulation.clearDeviceMetricsOverride", json!({})).await;
            self.devtools("Emulation.setTouchEmulationEnabled", json!({ "enabled": false })).await;
            return;
        }
        self.devtools("Emulation.setTouchEmulationEnabled", json!({ "enabled": true })).await;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": true });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// The whole page, into `target/screenshots`.
    pub async fn screenshot(&self, name: &str) {
        let size = self.devtools("Page.getLayoutMetrics", json!({})).await["cssContentSize"].clone();
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let wanted = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.devtools("Page.captureScreenshot", wanted).await;
        let picture = base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), picture).unwrap();
    }
}
