//! One command until it is settled: sent, and sent again with the same key while nobody answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::args::Args;
use super::assortment::mix_bits;
use super::command::{Action, Command};
use super::lanes::Planned;
use crate::error;
use crate::ids::{CartId, ProductId, VendorId};
use crate::{CartClient, ClientSettings, CommandOptions, Error, Item, ItemChange, Outcome, Purchase};

/// A service that comes back should not wait longer than this for its callers.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A Retry-After above this is not believed: a test must go on.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    Refused { slug: String, detail: String },
    Unanswered { reason: String },
}

/// A command that ended.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) planned: Arc<Planned>,
    pub(crate) answer: Answer,
    pub(crate) command_id: Option<Uuid>,
    /// From when it was due (open loop) or first sent (closed loop) to its answer.
    pub(crate) latency: Duration,
}

/// Retries by cause, counted as they happen: while a service is away, nothing is settled but this moves.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    pub(crate) pending: AtomicU64,
    pub(crate) unavailable: AtomicU64,
    pub(crate) not_executed: AtomicU64,
    pub(crate) unknown: AtomicU64,
    last: Mutex<String>,
}

impl Retries {
    pub(crate) fn total(&self) -> u64 {
        let counts = [&self.pending, &self.unavailable, &self.not_executed, &self.unknown];
        counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Why the last one was needed.
    pub(crate) fn last_reason(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, trouble: &Trouble) {
        let count = match trouble.cause {
            Cause::Pending => &self.pending,
            Cause::Unavailable => &self.unavailable,
            Cause::NotExecuted => &self.not_executed,
            Cause::Unknown => &self.unknown,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&trouble.reason);
    }
}

#[derive(Debug, Clone, Copy)]
enum Cause {
    Pending,
    Unavailable,
    NotExecuted,
    Unknown,
}

/// Why an attempt did not settle its command.
struct Trouble {
    cause: Cause,
    reason: String,
    retry_after: Option<Duration>,
    is_transient: bool,
    command_id: Option<Uuid>,
}

/// What one attempt gave.
enum Attempt {
    Settled(Answer, Option<Uuid>),
    Trouble(Trouble),
}

/// How commands are sent in this run.
#[derive(Debug)]
pub(crate) struct Sender {
    clients: Vec<CartClient>,
    run_id: String,
    send_time: bool,
    retry_for: Duration,
    retry_pause: Duration,
    pub(crate) retries: Retries,
}

impl Sender {
    pub(crate) fn new(args: &Args, run_id: String) -> Result<Self, Error> {
        let settings = ClientSettings {
            connect_timeout: args.connect_timeout,
            answer_timeout: args.answer_timeout,
            idle_connections_max: args.in_flight_max(),
        };
        Ok(Self {
            clients: args.url.iter().map(|url| CartClient::new(url, &settings)).collect::<Result<_, _>>()?,
            run_id,
            send_time: !args.no_send_time,
            retry_for: args.retry_for,
            retry_pause: args.retry_pause.max(Duration::from_millis(1)),
            retries: Retries::default(),
        })
    }

    /// Sends a command until it is answered or its time is over.
    pub(crate) async fn settle(&self, planned: Arc<Planned>) -> Settled {
        let sent_at = Instant::now();
        let counts_from = planned.due.unwrap_or(sent_at);
        let request = Request::of(&planned.command);
        let key = format!("{}-{}", self.run_id, planned.sequence);
        let options =
            CommandOptions { idempotency_key: Some(&key), command_time: self.send_time.then_some(planned.command.at) };
        let mut known_id = None;
        let mut attempt = 0;
        let (answer, command_id) = loop {
            let trouble = match request.send(self.client(planned.sequence, attempt), options).await {
                Attempt::Settled(answer, command_id) => break (answer, command_id.or(known_id)),
                Attempt::Trouble(trouble) => trouble,
            };
            known_id = known_id.or(trouble.command_id);
            let pause = self.pause(planned.sequence, attempt).max(trouble.retry_after.unwrap_or_default());
            if !trouble.is_transient || sent_at.elapsed() + pause >= self.retry_for {
                break (Answer::Unanswered { reason: trouble.reason }, known_id);
            }
            self.retries.note(&trouble);
            tokio::time::sleep(pause).await;
            attempt += 1;
        };
        Settled { planned, answer, command_id, latency: counts_from.elapsed() }
    }

    /// Round robin; a retry goes to the next service, so that a dead one only costs time.
    fn client(&self, sequence: u64, attempt: u32) -> &CartClient {
        let turn = sequence.wrapping_add(u64::from(attempt));
        let place = usize::try_from(turn % self.clients.len() as u64).unwrap_or_default();
        &self.clients[place]
    }

    /// Doubles from the first pause on; between half and all of that, so that callers don't come back together.
    fn pause(&self, sequence: u64, attempt: u32) -> Duration {
        let full = self.retry_pause.saturating_mul(1 << attempt.min(16)).min(PAUSE_MAX);
        let sixteenths = 8 + mix_bits(sequence ^ u64::from(attempt) << 48) % 9;
        full * u32::try_from(sixteenths).unwrap_or(16) / 16
    }
}

/// A command with the ids of its labels.
struct Request {
    cart: CartId,
    kind: Kind,
}

enum Kind {
    Add(Item),
    Adjust(ProductId, i64),
    Remove(ProductId),
    Checkout,
}

impl Request {
    fn of(command: &Command) -> Self {
        let kind = match &command.action {
            Action::Add { product, vendor, name, price, quantity } => Kind::Add(Item {
                product_id: ProductId::of_product(product),
                vendor_id: VendorId::of_vendor(vendor),
                name: name.clone(),
                price: *price,
                quantity: *quantity,
            }),
            Action::Adjust { product, by } => Kind::Adjust(ProductId::of_product(product), *by),
            Action::Remove { product } => Kind::Remove(ProductId::of_product(product)),
            Action::Checkout => Kind::Checkout,
        };
        Self { cart: CartId::of_member(&command.member), kind }
    }

    async fn send(&self, client: &CartClient, options: CommandOptions<'_>) -> Attempt {
        let changed = |change: ItemChange| change.command_id;
        let bought = |purchase: Purchase| purchase.command_id;
        match &self.kind {
            Kind::Add(item) => attempt(client.add(self.cart, item, options).await, changed),
            Kind::Adjust(product, by) => attempt(client.adjust(self.cart, *product, *by, options).await, changed),
            Kind::Remove(product) => attempt(client.remove(self.cart, *product, options).await, changed),
            Kind::Checkout => attempt(client.checkout(self.cart, options).await, bought),
        }
    }
}

fn attempt<T>(result: Result<Outcome<T>, Error>, command_id: impl FnOnce(T) -> Uuid) -> Attempt {
    let trouble = match result {
        Ok(Outcome::Accepted(accepted)) => {
            return Attempt::Settled(Answer::Accepted, Some(command_id(accepted)));
        }
        Ok(Outcome::Rejected(problem)) => {
            let refused = Answer::Refused { slug: problem.slug().to_owned(), detail: problem.detail };
            return Attempt::Settled(refused, problem.command_id);
        }
        Ok(Outcome::Pending { command_id }) => Trouble {
            cause: Cause::Pending,
            reason: "202: no outcome in time".to_owned(),
            retry_after: None,
            is_transient: true,
            command_id: Some(command_id),
        },
        Ok(Outcome::Unavailable { retry_after }) => Trouble {
            cause: Cause::Unavailable,
            reason: "503: unavailable".to_owned(),
            retry_after: retry_after.map(|pause| pause.min(RETRY_AFTER_MAX)),
            is_transient: true,
            command_id: None,
        },
        Err(error) => Trouble {
            cause: match error.execution() {
                crate::Execution::NotExecuted => Cause::NotExecuted,
                crate::Execution::Unknown => Cause::Unknown,
            },
            reason: error::chain(&error),
            retry_after: None,
            is_transient: error.is_transient(),
            command_id: None,
        },
    };
    Attempt::Trouble(trouble)
}
