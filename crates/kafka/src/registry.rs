//! The schema registry: registering what we write, fetching what others wrote.

use std::net::IpAddr;
use std::time::Duration;

use apache_avro::Schema;
use reqwest::{ClientBuilder, RequestBuilder, Response, StatusCode, Url};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use serde::Deserialize;

use crate::error::{RegistryFailure, error_text};
use crate::registry_args::Credentials;
use crate::{Error, KafkaArgs, RegistryArgs};

/// A registry answers in milliseconds or is in trouble; callers try again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A change is stored before it is answered, and `setup` makes it once: on a busy machine it takes longer than a question.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Old data must stay readable with new schemas, over all versions. FULL would forbid a new kind of event for ever.
pub const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";

/// Whether a URL names this machine: 127.0.0.0/8, `::1` or `localhost`. No proxy can reach that, so it is asked directly,
/// also where `http_proxy` is set and `no_proxy` is not.
fn is_loopback(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        // The parser has made it lower case. RFC 6761 reserves all names below it.
        Err(_) => host.trim_end_matches('.').rsplit('.').next() == Some("localhost"),
    }
}

/// What to do about a request that failed or was refused.
fn advice(args: &RegistryArgs, reason: &str, status: Option<StatusCode>) -> Option<&'static str> {
    match status {
        Some(StatusCode::UNAUTHORIZED) if args.registry_user.is_some() => {
            Some("check --registry-user and --registry-password-file (REGISTRY_PASSWORD)")
        }
        Some(StatusCode::UNAUTHORIZED) if args.registry_token_file.is_some() => Some("check --registry-token-file"),
        Some(StatusCode::UNAUTHORIZED) => Some("it wants a user: give --registry-user or --registry-token-file"),
        Some(StatusCode::FORBIDDEN) => Some("the registry's user may not do this"),
        Some(_) => None,
        None if reason.contains("certificate has expired") => Some("renew the registry's certificate"),
        None if reason.contains("mismatch") => {
            Some("the certificate is not for the host in --schema-registry-url: use a name that it has")
        }
        None if reason.contains("certificate") => {
            Some("no trusted authority has signed its certificate: give its authority's with --registry-ca-cert")
        }
        None => None,
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
    args: RegistryArgs,
    http: reqwest::Client,
    url: String,
    prefix: String,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("url", &self.url).finish_non_exhaustive()
    }
}

impl From<reqwest::Error> for RegistryFailure {
    fn from(error: reqwest::Error) -> Self {
        // Its address is said already.
        error_text(&error.without_url()).into()
    }
}

impl Registry {
    /// A client for the registry that the arguments name. Does not connect yet.
    ///
    /// # Errors
    /// When a setting or a file is invalid.
    pub fn new(args: &KafkaArgs) -> Result<Self, Error> {
        let url = args.schema_registry_url.trim_end_matches('/').to_owned();
        let invalid = |reason: &str| {
            Error::fatal("setting up the client of the schema registry", format!("--schema-registry-url {reason}"))
        };
        // The URL is in errors and logs.
        match Url::parse(&url) {
            Ok(url) if url.password().is_some() || !url.username().is_empty() => {
                return Err(invalid(
                    "has a user or a password: give them with --registry-user and --registry-password-file",
                ));
            }
            Ok(url) if ["http", "https"].contains(&url.scheme()) => {}
            Ok(_) | Err(_) => return Err(invalid("is not a URL that starts with http:// or https://")),
        }
        let failed = |failure: RegistryFailure| {
            Error::fatal(format!("setting up the client of the schema registry at {url}"), failure)
        };
        let registry = args.registry.clone();
        registry.credentials().map_err(|reason| failed(reason.into()))?;
        let http = http(&registry, &url).map_err(|reason| failed(reason.into()))?;
        let http = http.build().map_err(|error| failed(error.into()))?;
        Ok(Self { args: registry, http, prefix: args.topic_prefix.clone(), url })
    }

    /// Sends a request, with the credentials.
    async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryFailure> {
        let request = match self.args.credentials()? {
            Credentials::Nothing => request,
            Credentials::Basic(user, password) => request.basic_auth(user, Some(password.expose())),
            Credentials::Bearer(token) => request.bearer_auth(token.expose()),
        };
        let response = request.send().await.map_err(|error| self.advise(error.into(), None))?;
        match response.status() {
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let is_denied = status == StatusCode::FORBIDDEN;
                Err(self.advise(RegistryFailure { reason: status.to_string(), is_denied }, Some(status)))
            }
            _ => Ok(response),
        }
    }

    fn advise(&self, mut failure: RegistryFailure, status: Option<StatusCode>) -> RegistryFailure {
        if let Some(advice) = advice(&self.args, &failure.reason, status) {
            failure.reason = format!("{}: {advice}", failure.reason);
        }
        failure
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
        let failed = |failure: RegistryFailure| Error::retry(operation(), failure);
        let url = format!("{}/subjects/{subject}/versions", self.url);
        let body = serde_json::json!({ "schema": schema, "schemaType": "AVRO" });
        let response = self.send(self.http.post(&url).timeout(CHANGE_TIMEOUT).json(&body)).await.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            let registered: Registered = response.json().await.map_err(|error| failed(error.into()))?;
            return Ok(registered.id);
        }
        let reason = format!("{status}: {}", response.text().await.map_err(|error| failed(error.into()))?);
        if status != StatusCode::CONFLICT {
            return Err(Error::retry(operation(), reason));
        }
        let advice = "an incompatible schema is registered there: delete it, give this installation its own \
                      --topic-prefix, or upgrade this program";
        Err(Error::fatal(format!("{} ({advice})", operation()), reason))
    }

    async fn set_compatibility(&self, subject: &str) -> Result<(), Error> {
        let failed = |failure: RegistryFailure| {
            Error::retry(format!("setting the compatibility of {subject} at {}", self.url), failure)
        };
        let url = format!("{}/config/{subject}", self.url);
        if self.has_compatibility(&url).await.map_err(failed)? {
            return Ok(());
        }
        let body = serde_json::json!({ "compatibility": COMPATIBILITY });
        let response = self.send(self.http.put(&url).timeout(CHANGE_TIMEOUT).json(&body)).await.map_err(failed)?;
        // Of several that set it at the same moment, all but one get a conflict.
        if response.status() == StatusCode::CONFLICT && self.has_compatibility(&url).await.map_err(failed)? {
            return Ok(());
        }
        response.error_for_status().map(|_| ()).map_err(|error| failed(error.into()))
    }

    /// Whether a subject's compatibility, at `url`, is ours. There is none before it is set.
    async fn has_compatibility(&self, url: &str) -> Result<bool, RegistryFailure> {
        let response = self.send(self.http.get(url)).await?;
        Ok(response.status().is_success() && response.text().await?.contains(COMPATIBILITY))
    }

    /// The settings of the registry's other client, with the present credentials.
    fn settings(&self) -> Result<SrSettings, String> {
        let mut settings = SrSettings::new_builder(self.url.clone());
        settings.set_timeout(REQUEST_TIMEOUT);
        match self.args.credentials()? {
            Credentials::Nothing => {}
            Credentials::Basic(user, password) => {
                settings.set_basic_authorization(&user, Some(password.expose()));
            }
            Credentials::Bearer(token) => {
                settings.set_token_authorization(token.expose());
            }
        }
        settings.build_with(http(&self.args, &self.url)?).map_err(|error| error_text(&error))
    }

    /// The schema with this id; `None` when the registry knows no such id or it is no Avro schema.
    ///
    /// # Errors
    /// If the registry does not respond.
    pub(crate) async fn schema(&self, id: u32) -> Result<Option<Schema>, Error> {
        let operation = || format!("fetching schema {id} from {}", self.url);
        // Schemas are fetched once, so a client for each costs nothing, and has the present credentials.
        let settings = self.settings().map_err(|reason| Error::retry(operation(), reason))?;
        let error = match get_schema_by_id(id, &settings).await {
            Ok(registered) => return Ok(Schema::parse_str(&registered.schema).ok()),
            Err(error) => error,
        };
        // The registry has refused. The error does not have the status; another request does.
        if !error.retriable {
            match self.send(self.http.get(format!("{}/schemas/ids/{id}", self.url))).await {
                Ok(response) if response.status() == StatusCode::NOT_FOUND => return Ok(None),
                Ok(_) => {}
                Err(failure) => return Err(Error::retry(operation(), failure)),
            }
        }
        Err(Error::retry(operation(), error))
    }

    /// Removes a subject (its full name) with all its versions; one that is not there is fine.
    ///
    /// # Errors
    /// If the registry does not respond, or refuses.
    pub async fn remove_subject(&self, subject: &str) -> Result<(), Error> {
        let failed = |failure: RegistryFailure| {
            Error::retry(format!("deleting the schemas of {subject} at {}", self.url), failure)
        };
        // A subject is marked as deleted first; only then can it be removed.
        for permanent in [false, true] {
            let url = format!("{}/subjects/{subject}?permanent={permanent}", self.url);
            let response = self.send(self.http.delete(url)).await.map_err(failed)?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(());
            }
            response.error_for_status().map_err(|error| failed(error.into()))?;
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
        let failed = |failure: RegistryFailure| {
            Error::retry(format!("reading the compatibility of {subject} at {}", self.url), failure)
        };
        let response = self.send(self.http.get(format!("{}/config/{subject}", self.url))).await.map_err(failed)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = response.error_for_status().map_err(|error| failed(error.into()))?;
        let config: Config = response.json().await.map_err(|error| failed(error.into()))?;
        Ok(Some(config.compatibility_level))
    }

    /// The id of `schema` under the subject of `topic` (without the prefix); `None` where it is not registered. Registers
    /// nothing.
    ///
    /// # Errors
    /// If the registry does not respond, or refuses.
    pub async fn registered_id(&self, topic: &str, schema: &str) -> Result<Option<u32>, Error> {
        let subject = format!("{}{topic}-value", self.prefix);
        let failed = |failure: RegistryFailure| {
            Error::retry(format!("looking up the schema of {subject} at {}", self.url), failure)
        };
        let body = serde_json::json!({ "schema": schema, "schemaType": "AVRO" });
        let request = self.http.post(format!("{}/subjects/{subject}", self.url)).json(&body);
        let response = self.send(request).await.map_err(failed)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = response.error_for_status().map_err(|error| failed(error.into()))?;
        let registered: Registered = response.json().await.map_err(|error| failed(error.into()))?;
        Ok(Some(registered.id))
    }

    /// Whether `schema` is registered under the subject of `topic` (without the prefix); `None` where the subject has no schema.
    ///
    /// # Errors
    /// If the registry does not respond, or refuses.
    pub async fn is_registered(&self, topic: &str, schema: &str) -> Result<Option<bool>, Error> {
        if self.registered_id(topic, schema).await?.is_some() {
            return Ok(Some(true));
        }
        let subject = format!("{}{topic}-value", self.prefix);
        let failed = |failure: RegistryFailure| {
            Error::retry(format!("looking up the schema of {subject} at {}", self.url), failure)
        };
        let url = format!("{}/subjects/{subject}", self.url);
        let versions = self.send(self.http.get(format!("{url}/versions"))).await.map_err(failed)?;
        if versions.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        versions.error_for_status().map(|_| Some(false)).map_err(|error| failed(error.into()))
    }

    /// Whether the registry answers at all.
    ///
    /// # Errors
    /// Says what it did instead.
    pub async fn check(&self) -> Result<(), Error> {
        let failed =
            |failure: RegistryFailure| Error::retry(format!("querying the schema registry at {}", self.url), failure);
        let response = self.send(self.http.get(format!("{}/schemas/types", self.url))).await.map_err(failed)?;
        response.error_for_status().map(|_| ()).map_err(|error| failed(error.into()))
    }
}

/// What both HTTP clients of the registry start from.
fn http(args: &RegistryArgs, url: &str) -> Result<ClientBuilder, String> {
    let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).tls_certs_merge(args.authorities()?);
    Ok(if is_loopback(url) { http.no_proxy() } else { http })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
