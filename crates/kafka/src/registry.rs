//! The schema registry: registering what we write, fetching what others wrote.

use std::time::Duration;

use apache_avro::Schema;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id, post_schema};
use schema_registry_converter::schema_registry_common::{SchemaType, SuppliedSchema};

use crate::{Error, KafkaArgs};

/// A registry answers in milliseconds or is in trouble; callers try again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Old data must stay readable with new schemas, over all versions. FULL would forbid a new kind of event for ever.
const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";

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
        let settings = SrSettings::new_builder(url.clone())
            .set_timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|error| Error::fatal(failed(), error))?;
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|error| Error::fatal(failed(), error))?;
        Ok(Self { settings, http, prefix: args.topic_prefix.clone(), url })
    }

    /// Registers `schema` for the values of `topic` (without the prefix) and returns its id; the same id each time.
    /// The subject's compatibility is set first: a registry's default checks nothing.
    ///
    /// # Errors
    /// When the registry is away, or refuses the schema as incompatible with what is registered.
    pub async fn register(&self, topic: &str, schema: &str) -> Result<u32, Error> {
        let subject = format!("{}{topic}-value", self.prefix);
        self.set_compatibility(&subject).await?;
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        match post_schema(&self.settings, subject.clone(), supplied).await {
            Ok(registered) => Ok(registered.id),
            Err(error) => {
                let mut operation = format!("registering the schema of {subject} at {}", self.url);
                let refused =
                    error.cause.as_deref().is_some_and(|cause| cause.contains("409")) || error.error.contains("409");
                if !refused {
                    return Err(Error::retry(operation, error));
                }
                operation.push_str(
                    ", where another schema is registered that ours does not fit (by somebody else, or by hand: take it \
                     away, give this installation a --topic-prefix of its own, or upgrade this program),",
                );
                Err(Error::fatal(operation, error))
            }
        }
    }

    async fn set_compatibility(&self, subject: &str) -> Result<(), Error> {
        let failed = |error| Error::retry(format!("setting the compatibility of {subject} at {}", self.url), error);
        let url = format!("{}/config/{subject}", self.url);
        if self.has_compatibility(&url).await.map_err(failed)? {
            return Ok(());
        }
        let body = serde_json::json!({ "compatibility": COMPATIBILITY });
        let response = self.http.put(&url).json(&body).send().await.map_err(failed)?;
        // Of several who set it at the same moment, all but one are told that there is one already.
        if response.status() == reqwest::StatusCode::CONFLICT && self.has_compatibility(&url).await.map_err(failed)? {
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
    /// When the registry is away.
    pub(crate) async fn schema(&self, id: u32) -> Result<Option<Schema>, Error> {
        match get_schema_by_id(id, &self.settings).await {
            Ok(registered) => Ok(Schema::parse_str(&registered.schema).ok()),
            Err(error) if error.error.contains("404") => Ok(None),
            Err(error) => Err(Error::retry(format!("fetching schema {id} from {}", self.url), error)),
        }
    }

    /// Removes a subject (its full name) with all its versions; one that is not there is fine.
    ///
    /// # Errors
    /// When the registry is away or refuses.
    pub async fn remove_subject(&self, subject: &str) -> Result<(), Error> {
        let failed = |error| Error::retry(format!("deleting the schemas of {subject} at {}", self.url), error);
        // A subject is marked as deleted first; only then can it be removed.
        for permanent in [false, true] {
            let url = format!("{}/subjects/{subject}?permanent={permanent}", self.url);
            let response = self.http.delete(url).send().await.map_err(failed)?;
            if response.status() == reqwest::StatusCode::NOT_FOUND {
                return Ok(());
            }
            response.error_for_status().map_err(failed)?;
        }
        Ok(())
    }

    /// Whether the registry answers at all.
    ///
    /// # Errors
    /// Says what it did instead.
    pub async fn check(&self) -> Result<(), Error> {
        let response = self.http.get(format!("{}/schemas/types", self.url)).send().await;
        match response.and_then(reqwest::Response::error_for_status) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::retry(format!("asking the schema registry at {}", self.url), error)),
        }
    }
}
