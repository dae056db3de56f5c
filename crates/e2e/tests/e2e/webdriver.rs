//! A real Chromium, driven by Debian's `chromium-driver` (<https://www.w3.org/TR/webdriver2/>): HTTP and JSON.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use e2e::harness::{free_address, wait_until};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::http::api::DEADLINE;

const START_DEADLINE: Duration = Duration::from_secs(60);

/// Keys by their code points in WebDriver.
pub(crate) const TAB: &str = "\u{E004}";
pub(crate) const ENTER: &str = "\u{E007}";
pub(crate) const ESCAPE: &str = "\u{E00C}";
pub(crate) const LEFT: &str = "\u{E012}";

/// The size of the page's area, and how it is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) is_dark: bool,
    pub(crate) is_phone: bool,
}

impl View {
    pub(crate) const DESKTOP: Self = Self { width: 1280, height: 900, is_dark: false, is_phone: false };
}

/// A browser with one window.
#[derive(Debug)]
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    client: Client,
    session: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A driver that ends leaves its browser behind; the end of the session ends both.
        self.end_session().unwrap_or_default();
        self.driver.kill().unwrap_or_default();
        drop(self.driver.wait());
    }
}

impl Browser {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let address = free_address()?;
        let driver = Command::new("chromedriver")
            .args([format!("--port={}", address.port()), "--log-level=SEVERE".to_owned()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting chromedriver; `scripts/prerequisites --install browser` installs it on Debian")?;
        let client = Client::builder().timeout(DEADLINE).build()?;
        let mut browser = Self { driver, address, client, session: format!("http://{address}") };
        wait_until("the driver", START_DEADLINE, async || browser.call(Method::GET, "/status", &Value::Null).await)
            .await?;
        // The sandbox needs a user of its own, which root is not.
        let args = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1400,1000", "--lang=en"];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.call(Method::POST, "/session", &wanted).await?;
        let id = session["sessionId"].as_str().with_context(|| format!("no session: {session}"))?;
        browser.session = format!("{}/session/{id}", browser.session);
        Ok(browser)
    }

    /// Without the client, whose runtime may be at its end.
    fn end_session(&self) -> std::io::Result<()> {
        let path = self.session.trim_start_matches("http://").trim_start_matches(&self.address.to_string());
        let mut connection = TcpStream::connect(self.address)?;
        connection.set_read_timeout(Some(DEADLINE))?;
        write!(connection, "DELETE {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
        // The answer comes when the browser has ended.
        connection.read(&mut [0; 512]).map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.client.request(method, format!("{}{path}", self.session));
        let request = if body.is_null() { request } else { request.json(body) };
        let response = request.send().await?;
        let status = response.status();
        let mut answer: Value = response.json().await?;
        ensure!(status.is_success(), "{path}: {}", answer["value"]["message"]);
        Ok(answer["value"].take())
    }

    pub(crate) async fn open(&self, url: &str) -> anyhow::Result<()> {
        self.call(Method::POST, "/url", &json!({"url": url})).await.map(drop)
    }

    /// The value of a script's `return`.
    pub(crate) async fn run(&self, script: &str) -> anyhow::Result<Value> {
        self.call(Method::POST, "/execute/sync", &json!({"script": script, "args": []})).await
    }

    /// Waits until a script returns a value.
    pub(crate) async fn sees(&self, what: &str, script: &str, wanted: &Value) -> anyhow::Result<()> {
        wait_until(what, DEADLINE, async || {
            let found = self.run(script).await.map_err(|error| format!("{error:#}"))?;
            if found == *wanted { Ok(()) } else { Err(format!("{found} instead of {wanted}")) }
        })
        .await
    }

    /// Presses a key and lets it go.
    pub(crate) async fn press(&self, key: &str) -> anyhow::Result<()> {
        self.presses([key.to_owned()]).await
    }

    /// Types a text into the element with the focus.
    pub(crate) async fn types(&self, text: &str) -> anyhow::Result<()> {
        self.presses(text.chars().map(String::from)).await
    }

    async fn presses(&self, keys: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
        let strokes: Vec<_> = keys
            .into_iter()
            .flat_map(|key| ["keyDown", "keyUp"].map(|stroke| json!({"type": stroke, "value": key})))
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]});
        self.call(Method::POST, "/actions", &actions).await.map(drop)
    }

    /// Clicks the element that a selector finds, once it is there and nothing covers it.
    pub(crate) async fn click(&self, selector: &str) -> anyhow::Result<()> {
        wait_until(&format!("{selector} to take a click"), DEADLINE, async || {
            let clicked = async {
                let found = json!({"using": "css selector", "value": selector});
                let element = self.call(Method::POST, "/element", &found).await?;
                let id = element.as_object().and_then(|object| object.values().next()).and_then(Value::as_str);
                let path = format!("/element/{}/click", id.context("an element has an id")?);
                self.call(Method::POST, &path, &json!({})).await
            };
            clicked.await.map(drop).map_err(|error: anyhow::Error| format!("{error:#}"))
        })
        .await
    }

    /// Moves the focus with Tab until a script says that it is there.
    pub(crate) async fn tab_to(&self, what: &str, is_there: &str) -> anyhow::Result<()> {
        const TABS_MAX: usize = 80;
        for _ in 0..TABS_MAX {
            self.press(TAB).await?;
            if self.run(is_there).await? == true {
                return Ok(());
            }
        }
        anyhow::bail!("{TABS_MAX} times Tab did not lead to {what}")
    }

    /// The errors and warnings since the last call, also those of the content security policy.
    pub(crate) async fn complaints(&self) -> anyhow::Result<Vec<Value>> {
        let log = self.call(Method::POST, "/se/log", &json!({"type": "browser"})).await?;
        let entries = log.as_array().cloned().unwrap_or_default();
        Ok(entries.into_iter().filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING").collect())
    }

    async fn devtools(&self, command: &str, params: Value) -> anyhow::Result<Value> {
        self.call(Method::POST, "/goog/cdp/execute", &json!({"cmd": command, "params": params})).await
    }

    pub(crate) async fn look(&self, view: View) -> anyhow::Result<()> {
        let View { width, height, is_dark, is_phone } = view;
        let scale = if is_phone { 2 } else { 1 };
        let size = json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await?;
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", features).await.map(drop)
    }

    /// What the window shows, as a PNG file.
    pub(crate) async fn picture(&self) -> anyhow::Result<Vec<u8>> {
        let picture = self.devtools("Page.captureScreenshot", json!({"format": "png"})).await?;
        let text = picture["data"].as_str().context("a picture")?;
        BASE64_STANDARD.decode(text).context("reading a picture")
    }
}
