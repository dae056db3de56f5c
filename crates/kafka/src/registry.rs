//! The schema registry: registering what we write, fetching what others wrote.

use std::net::IpAddr;
use std::time::Duration;

use apache_avro::Schema;
use reqwest::StatusCode;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use serde::Deserialize;

use crate::{Error, KafkaArgs};

/// A registry answers in milliseconds or is in trouble; callers try again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Old data must stay readable with new schemas, over all versions. FULL would forbid a new kind of event for ever.
pub const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";

/// Whether a URL names this machine: 127.0.0.0/8, `::1` or `localhost`. No proxy can reach that, so it is asked directly,
/// also where `http_proxy` is set and `no_proxy` is not.
fn is_loopback(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        // The parser has made it lower case. RFC 6761 reserves all names below it.
        Err(_) => host.trim_end_matches('.').rsplit('.').next() == Some("localhost"),
    }
}

/// The answer to a registration.
#[derive(Deserialize)]
struct Registered {
    id: u32,
}

/// A client of the schema registry.
#[derive(Clone)]
pub struct Registry {
    settings: SrSettings,
    http: reqwest::Client,
    url: String,
    prefix: String,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Registry {
    /// A client for the registry that the arguments name. Does not connect yet.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn new(args: &KafkaArgs) -> Result<Self, Error> {
        let url = args.schema_registry_url.trim_end_matches('/').to_owned();
        let failed = || format!("setting up the client of the schema registry at {url}");
        let mut settings = SrSettings::new_builder(url.clone());
        settings.set_timeout(REQUEST_TIMEOUT);
        let mut http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT);
        if is_loopback(&url) {
            settings.no_proxy();
            http = http.no_proxy();
        }
        let settings = settings.build().map_err(|error| Error::fatal(failed(), error))?;
        let http = http.build().map_err(|error| Error::fatal(failed(), error))?;
        Ok(Self { settings, http, prefix: args.topic_prefix.clone(), url })
    }

    /// Registers `schema` for the values of `topic` (without the prefix) and returns its id; the same id each time.
    /// The subject's compatibility is set first: a registry's default checks nothing.
    ///
    /// # Errors
    /// If the registry does not respond, or refuses the schema as incompatible with what is registered.
    pub async fn register(&self, topic: &str, schema: &str) -> Result<u32, Error> {
        let subject = format!("{}{topic}-value", self.prefix);
        self.set_compatibility(&subject).await?;
        let operation = || format!("registering the schema of {subject} at {}", self.url);
        let failed = |error: reqwest::Error| Error::retry(operation(), error);
        let url = format!("{}/subjects/{subject}/versions", self.url);
        let body = serde_json::json!({ "schema": schema, "schemaType": "AVRO" });
        let response = self.http.post(&url).json(&body).send().await.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            let registered: Registered = response.json().await.map_err(failed)?;
            return Ok(registered.id);
        }
        let reason = format!("{status}: {}", response.text().await.map_err(failed)?);
        if status != StatusCode::CONFLICT {
            return Err(Error::retry(operation(), reason));
        }
        let advice = "an incompatible schema is registered there: delete it, give this installation its own \
                      --topic-prefix, or upgrade this program";
        Err(Error::fatal(format!("{} ({advice})", operation()), reason))
    }

    async fn set_compatibility(&self, subject: &str) -> Result<(), Error> {
        let failed = |error| Error::retry(format!("setting the compatibility of {subject} at {}", self.url), error);
        let url = format!("{}/config/{subject}", self.url);
        if self.has_compatibility(&url).await.map_err(failed)? {
            return Ok(());
        }
        let body = serde_json::json!({ "compatibility": COMPATIBILITY });
        let response = self.http.put(&url).json(&body).send().await.map_err(failed)?;
        // Of several that set it at the same moment, all but one get a conflict.
        if response.status() == StatusCode::CONFLICT && self.has_compatibility(&url).await.map_err(failed)? {
            return Ok(());
        }
        response.error_for_status().map(|_| ()).map_err(failed)
    }

    /// Whether a subject's compatibility, at `url`, is ours. There is none before it is set.
    async fn has_compatibility(&self, url: &str) -> Result<bool, reqwest::Error> {
        let response = self.http.get(url).send().await?;
        Ok(response.status().is_success() && response.text().await?.contains(COMPATIBILITY))
    }

    /// The schema with this id; `None` when the registry knows no such id or it is no Avro schema.
    ///
    /// # Errors
    /// If the registry does not respond.
    pub(crate) async fn schema(&self, id: u32) -> Result<Option<Schema>, Error> {
        let error = match get_schema_by_id(id, &self.settings).await {
            Ok(registered) => return Ok(Schema::parse_str(&registered.schema).ok()),
            Err(error) => error,
        };
        // The registry has refused. The error does not have the status; another request does.
        if !error.retriable {
            let response = self.http.get(format!("{}/schemas/ids/{id}", self.url)).send().await;
            if response.is_ok_and(|response| response.status() == StatusCode::NOT_FOUND) {
                return Ok(None);
            }
        }
        Err(Error::retry(format!("fetching schema {id} from {}", self.url), error))
    }

    /// Removes a subject (its full name) with all its versions; one that is not there is fine.
    ///
    /// # Errors
    /// If the registry does not respond, or refuses.
    pub async fn remove_subject(&self, subject: &str) -> Result<(), Error> {
        let failed = |error| Error::retry(format!("deleting the schemas of {subject} at {}", self.url), error);
        // A subject is marked as deleted first; only then can it be removed.
        for permanent in [false, true] {
            let url = format!("{}/subjects/{subject}?permanent={permanent}", self.url);
            let response = self.http.delete(url).send().await.map_err(failed)?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(());
            }
            response.error_for_status().map_err(failed)?;
        }
        Ok(())
    }

    /// The compatibility that is set on the subject of `topic` (without the prefix); `None` where none is set.
    ///
    /// # Errors
    /// If the registry does not respond, or refuses.
    pub async fn compatibility(&self, topic: &str) -> Result<Option<String>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Config {
            compatibility_level: String,
        }
        let subject = format!("{}{topic}-value", self.prefix);
        let failed = |error| Error::retry(format!("reading the compatibility of {subject} at {}", self.url), error);
        let response = self.http.get(format!("{}/config/{subject}", self.url)).send().await.map_err(failed)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let config: Config = response.error_for_status().map_err(failed)?.json().await.map_err(failed)?;
        Ok(Some(config.compatibility_level))
    }

    /// Whether `schema` is registered under the subject of `topic` (without the prefix); `None` where the subject has no schema.
    ///
    /// # Errors
    /// If the registry does not respond, or refuses.
    pub async fn is_registered(&self, topic: &str, schema: &str) -> Result<Option<bool>, Error> {
        let subject = format!("{}{topic}-value", self.prefix);
        let failed = |error| Error::retry(format!("looking up the schema of {subject} at {}", self.url), error);
        let url = format!("{}/subjects/{subject}", self.url);
        let body = serde_json::json!({ "schema": schema, "schemaType": "AVRO" });
        let response = self.http.post(&url).json(&body).send().await.map_err(failed)?;
        if response.status() != StatusCode::NOT_FOUND {
            return response.error_for_status().map(|_| Some(true)).map_err(failed);
        }
        let versions = self.http.get(format!("{url}/versions")).send().await.map_err(failed)?;
        if versions.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        versions.error_for_status().map(|_| Some(false)).map_err(failed)
    }

    /// Whether the registry answers at all.
    ///
    /// # Errors
    /// Says what it did instead.
    pub async fn check(&self) -> Result<(), Error> {
        let response = self.http.get(format!("{}/schemas/types", self.url)).send().await;
        match response.and_then(reqwest::Response::error_for_status) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::retry(format!("querying the schema registry at {}", self.url), error)),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn loopback_is_this_machine() {
        for url in [
            "http://127.0.0.1:8081/apis/ccompat/v7",
            "http://127.255.0.9",
            "http://127.1:8081",
            "http://[::1]:8081/apis",
            "http://[::ffff:127.0.0.1]:8081",
            "http://localhost:8081",
            "http://LOCALHOST./",
            "https://user:secret@registry.localhost/",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "http://128.0.0.1:8081",
            "http://0.0.0.0:8081",
            "http://10.0.0.1",
            "http://[::2]:8081",
            "http://registry:8081",
            "http://localhost.example.com",
            "http://notlocalhost",
            "http://127.0.0.1.example.com",
            "http://example.com/127.0.0.1",
            "localhost:8081",
            "",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    /// Answers each request as a registry with one schema would, and counts them.
    fn serve() -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let head = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
                assert!(head.count() > 0);
                let body = r#"{"schema":"\"string\""}"#;
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
                write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        (address, requests)
    }

    const URL: &str = "TEST_REGISTRY_URL";

    /// The environment is a process's own, so each request is made by a process of its own: this test again, with [`URL`] set.
    #[test]
    fn a_registry_on_this_machine_is_asked_without_the_proxy() {
        if let Ok(url) = std::env::var(URL) {
            return ask(url);
        }
        let (registry, direct) = serve();
        let (proxy, proxied) = serve();
        let counts = || (direct.load(Ordering::Relaxed), proxied.load(Ordering::Relaxed));
        let name = "registry::tests::a_registry_on_this_machine_is_asked_without_the_proxy";
        for (host, expected) in [
            ("127.0.0.1", (2, 0)),
            ("localhost", (4, 0)),
            // Another machine's registry is asked through the proxy: this test would see it.
            ("registry.invalid", (4, 2)),
        ] {
            let url = format!("http://{host}:{}/apis", registry.port());
            let mut again = Command::new(std::env::current_exe().unwrap());
            for name in ["no_proxy", "NO_PROXY", "HTTP_PROXY", "ALL_PROXY", "all_proxy"] {
                again.env_remove(name);
            }
            let proxy = format!("http://{proxy}");
            let output = again.args([name, "--exact"]).env(URL, &url).env("http_proxy", proxy).output().unwrap();
            assert!(output.status.success(), "{url}: {output:?}");
            assert_eq!(counts(), expected, "{url}");
        }
    }

    /// By both of its HTTP clients.
    fn ask(schema_registry_url: String) {
        let args = KafkaArgs {
            kafka_bootstrap_servers: String::new(),
            kafka_properties: Vec::new(),
            schema_registry_url,
            topic_prefix: String::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let registry = Registry::new(&args).unwrap();
        runtime.block_on(registry.check()).unwrap();
        assert!(runtime.block_on(registry.schema(1)).unwrap().is_some());
    }
}
