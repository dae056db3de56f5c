//! What operators do at the page: the requests of `cartctl pause`, `resume`, `skip`, `parked retry` and `parked rows retry`, with the same
//! refusals and records.

mod rows;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bearer::{Rejected, Verifier};
use cart::{CartId, Control, VendorId};
use control::{ControlTopic, Group, PauseRequest, ResumeRequest, SkipRequest, signed};
use kafka::{Admin, KafkaArgs, Registry};
use parking::{AllParked, request_retry};
use serde::Deserialize;
use service::Shutdown;
use tokio::sync::{OnceCell, Semaphore};
use warp::http::HeaderMap;

use crate::args::Args;
use crate::metrics::JWKS_FAILURES;
use crate::stores::Stores;

/// The scope that a token needs.
pub(crate) const SCOPE: &str = "operator";

/// Who acts, where the page has no authentication.
const ANONYMOUS: &str = "cart-console";

/// An action is read, checked and recorded within a second; beyond this time a server does not answer. A record that is not delivered in
/// ten seconds has failed (`control`, `parking`), so that usually the answer has the reason.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The longest reason, in characters. It is shown in a line of the panel, of `cartctl status` and of `cartctl log`.
pub(crate) const REASON_MAX: usize = 200;

/// The longest name of an operator, in characters. It is shown in the same lines.
const NAME_MAX: usize = 200;

/// An operator's action. A misspelt field is an error: without `partition` a pause is of the whole group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "action", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum Action {
    Pause {
        group: String,
        #[serde(default)]
        partition: Option<i32>,
        reason: String,
    },
    Resume {
        group: String,
        #[serde(default)]
        partition: Option<i32>,
        #[serde(default)]
        reason: String,
    },
    /// The record at which the partition is stopped.
    Skip {
        group: String,
        partition: i32,
        offset: i64,
        /// The hash that the page has shown.
        sha256: String,
        reason: String,
    },
    /// Another try of a parked cart.
    Retry { cart_id: CartId },
    /// Another try of a parked row of a read table.
    RetryRow {
        /// The group of its generation.
        group: String,
        vendor_id: VendorId,
        /// The row within the vendor, as it is listed.
        row: String,
    },
}

impl Action {
    /// The command that shows whether it is recorded.
    fn list(&self) -> &'static str {
        match self {
            Self::Pause { .. } | Self::Resume { .. } | Self::Skip { .. } => "cartctl log",
            Self::Retry { .. } => "cartctl parked",
            Self::RetryRow { .. } => "cartctl parked rows",
        }
    }
}

/// Why an action was not done, or may not have been done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request is not understood. Nothing was recorded.
    Invalid(String),
    /// As `cartctl` would refuse it. Nothing was recorded.
    Refused(String),
    /// A server does not answer; the action may have been recorded.
    Unavailable(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Unavailable(error)
    }
}

impl From<kafka::Error> for Failure {
    fn from(error: kafka::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

/// Why access is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Unauthenticated(Rejected),
    /// No token can be verified yet.
    KeysUnknown,
    /// The token lacks [`SCOPE`].
    Scope,
}

/// Who acts, and why.
#[derive(Debug, Clone, Copy)]
struct Signed<'a> {
    by: &'a str,
    reason: &'a str,
}

/// Decides who may act, and records what operators want.
#[derive(Debug)]
pub(crate) struct Actions {
    kafka: KafkaArgs,
    stores: Arc<Stores>,
    verifier: Option<Verifier>,
    control: OnceCell<ControlTopic>,
    /// One action at a time: this console changes nothing between the check of an action and its record. `cartctl` still may.
    at_a_time: Semaphore,
}

impl Actions {
    /// `None` where they are not allowed. Reloads the keys of tokens regularly. Keys in a file are read here, those at a URL in the
    /// background: the page does not wait for servers.
    ///
    /// # Errors
    /// They would be open to everybody, or the file of the keys cannot be read.
    pub(crate) async fn start(args: &Args, stores: Arc<Stores>, shutdown: Shutdown) -> anyhow::Result<Option<Self>> {
        if !args.allow_operations {
            return Ok(None);
        }
        let verifier = Verifier::new(&args.bearer, JWKS_FAILURES)?;
        if let Some(verifier) = &verifier {
            if verifier.has_file() {
                verifier.read_keys().await?;
            }
            verifier.reload(shutdown);
        } else {
            ensure!(
                args.listen.ip().is_loopback(),
                "--allow-operations without authentication is rejected on {}, which is not a loopback address: set --auth jwt, or \
                 --listen to a loopback address",
                args.listen
            );
        }
        let (control, at_a_time) = (OnceCell::new(), Semaphore::new(1));
        Ok(Some(Self { kafka: args.kafka.clone(), stores, verifier, control, at_a_time }))
    }

    /// Whether an action needs a token.
    pub(crate) fn needs_token(&self) -> bool {
        self.verifier.is_some()
    }

    /// Who sends a request.
    ///
    /// # Errors
    /// It has no valid token, or one without the scope, or no token can be verified yet.
    pub(crate) async fn operator(&self, headers: &HeaderMap) -> Result<String, Denied> {
        let Some(verifier) = &self.verifier else { return Ok(ANONYMOUS.to_owned()) };
        let denied = |rejected| match rejected {
            Rejected::Invalid if !verifier.has_keys() => Denied::KeysUnknown,
            rejected @ (Rejected::Missing | Rejected::Malformed | Rejected::Invalid) => {
                Denied::Unauthenticated(rejected)
            }
        };
        let claims = verifier.verify(headers).await.map_err(denied)?;
        if claims.has_scope(SCOPE) { Ok(claims.subject().to_owned()) } else { Err(Denied::Scope) }
    }

    /// Does what an operator wants, and says what was done.
    ///
    /// # Errors
    /// Why it was not done.
    pub(crate) async fn perform(&self, action: Action, by: &str) -> Result<String, Failure> {
        let Ok(_permit) = self.at_a_time.try_acquire() else {
            return Err(Failure::Refused(String::from("another action is in progress: try again")));
        };
        let list = action.list();
        let done = tokio::time::timeout(TIMEOUT, self.record(action, by)).await;
        done.unwrap_or_else(|_| {
            let seconds = TIMEOUT.as_secs();
            Err(Failure::Unavailable(anyhow::anyhow!(
                "it was not found out in {seconds} s whether this is recorded: the panel and `{list}` show it"
            )))
        })
    }

    async fn record(&self, action: Action, by: &str) -> Result<String, Failure> {
        let by = named(by)?;
        match action {
            Action::Pause { group, partition, reason } => {
                let (group, reason) = (parse_group(&group)?, required(&reason)?);
                self.pause(group, partition, Signed { by, reason }).await
            }
            Action::Resume { group, partition, reason } => {
                let (group, reason) = (parse_group(&group)?, limited(&reason)?);
                self.resume(group, partition, Signed { by, reason }).await
            }
            Action::Skip { group, partition, offset, sha256, reason } => {
                let (group, reason) = (parse_group(&group)?, required(&reason)?);
                self.skip(group, (partition, offset), sha256, Signed { by, reason }).await
            }
            Action::Retry { cart_id } => self.retry(cart_id, by).await,
            Action::RetryRow { group, vendor_id, row } => self.retry_row(&group, vendor_id, &row, by).await,
        }
    }

    async fn control(&self) -> anyhow::Result<&ControlTopic> {
        let open = async || {
            let (registry, admin) = (Registry::new(&self.kafka)?, Arc::new(Admin::new(&self.kafka)?));
            anyhow::Ok(ControlTopic::open(&self.kafka, &registry, admin).await?)
        };
        self.control.get_or_try_init(open).await.context("opening topic cart-control")
    }

    async fn pause(&self, group: Group, partition: Option<i32>, signed_by: Signed<'_>) -> Result<String, Failure> {
        if let Some(partition) = partition.filter(|partition| *partition < 0) {
            return Err(Failure::Invalid(format!("{partition} is no partition: they are numbered from 0")));
        }
        let control = self.control().await?;
        let (topic, of) = (control.clone(), group.clone());
        let checked = blocking(move || {
            let request = PauseRequest { group: &of, partition, cuts: &[] };
            let (count, controls) = (of.partitions(&topic)?, topic.controls()?);
            let refusal = request.refusal(&topic, &controls, count)?;
            Ok(refusal.map_or_else(|| Ok(request.wanted(count)), Err))
        });
        let Signed { by, reason } = signed_by;
        for pause in checked.await?.map_err(Failure::Refused)? {
            let record = signed(by, reason, Control::Pause { before_offset: pause.before });
            control.send(&pause.key, Some(&record)).await?;
        }
        tracing::info!(by, group = group.name, partition, reason, "an operator pauses a group at the page");
        Ok(format!("{} is to pause: its members commit what they have read", shown(&group, partition)))
    }

    async fn resume(&self, group: Group, partition: Option<i32>, signed_by: Signed<'_>) -> Result<String, Failure> {
        let control = self.control().await?;
        let (topic, of) = (control.clone(), group.clone());
        let checked = blocking(move || Ok(ResumeRequest { group: &of, partition }.ended(&topic.controls()?)));
        let ended = checked.await?.map_err(Failure::Refused)?;
        if ended.is_empty() {
            return Ok(format!("{} is not paused", shown(&group, partition)));
        }
        let Signed { by, reason } = signed_by;
        for key in &ended {
            control.send(key, Some(&signed(by, reason, Control::Resume {}))).await?;
        }
        tracing::info!(by, group = group.name, partition, reason, "an operator resumes a group at the page");
        Ok(format!("{} goes on", shown(&group, partition)))
    }

    async fn skip(
        &self,
        group: Group,
        (partition, offset): (i32, i64),
        sha256: String,
        signed_by: Signed<'_>,
    ) -> Result<String, Failure> {
        let control = self.control().await?;
        let request = SkipRequest { group: &group, partition, offset };
        let (topic, of, expected) = (control.clone(), group.clone(), sha256.clone());
        let checked = blocking(move || {
            let request = SkipRequest { group: &of, partition, offset };
            let controls = topic.controls()?;
            let was_there = request.recorded(&controls) == Some(expected.as_str());
            let refusal = if was_there { None } else { request.refusal(&topic, &controls, &expected)? };
            Ok((was_there, refusal))
        });
        let (was_there, refusal) = checked.await?;
        if let Some(reason) = refusal {
            return Err(Failure::Refused(reason));
        }
        let (of, place) = (group.stage.group, request.place());
        if was_there {
            return Ok(format!("{of} skips {place} already"));
        }
        let Signed { by, reason } = signed_by;
        let record = signed(by, reason, Control::Skip { sha256 });
        control.send(&request.key(), Some(&record)).await?;
        tracing::info!(by, group = of, record = place, reason, "an operator skips a record at the page");
        Ok(format!("{of} skips {place}, and goes on behind it"))
    }

    async fn retry(&self, cart_id: CartId, by: &str) -> Result<String, Failure> {
        let parked = AllParked::read(&self.kafka).await?;
        let Some((partition, _)) = parked.cart(cart_id) else {
            return Err(Failure::Refused(format!("cart {cart_id} is not parked")));
        };
        request_retry(&self.kafka, &[(partition, cart_id)], by).await?;
        // Its only lasting record: the request on cart-parked ends with the try.
        tracing::info!(by, %cart_id, partition, "an operator requests another try of a parked cart at the page");
        Ok(format!("another try of cart {cart_id} is requested"))
    }
}

/// Runs what waits for the brokers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, kafka::Error> + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await??)
}

fn parse_group(name: &str) -> Result<Group, Failure> {
    name.parse().map_err(Failure::Invalid)
}

/// A reason, which may be empty.
fn limited(reason: &str) -> Result<&str, Failure> {
    let reason = reason.trim();
    if reason.chars().count() > REASON_MAX {
        return Err(Failure::Invalid(format!("the reason has more than {REASON_MAX} characters")));
    }
    Ok(reason)
}

/// A name that a line can show.
fn named(by: &str) -> Result<&str, Failure> {
    if by.chars().count() > NAME_MAX {
        let error = format!("the token's subject (`sub`) has more than {NAME_MAX} characters: use a shorter one");
        return Err(Failure::Invalid(error));
    }
    Ok(by)
}

fn required(reason: &str) -> Result<&str, Failure> {
    let reason = limited(reason)?;
    if reason.is_empty() {
        return Err(Failure::Invalid(String::from("a reason is required: status and log show it")));
    }
    Ok(reason)
}

fn shown(group: &Group, partition: Option<i32>) -> String {
    match partition {
        None => group.name.clone(),
        Some(partition) => format!("partition {partition} of {}", group.name),
    }
}

#[cfg(test)]
mod tests;
