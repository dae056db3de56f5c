//! Sends one command of the source until it has an answer.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::args::Args;
use super::command::{Action, Command};
use super::queues::Planned;
use super::record::{self, Accepted, Attempt, Sent};
use crate::ids::{CartId, ProductId, VendorId};
use crate::retry::{AttemptFailure, Completed, FailureKind, Retry};
use crate::{CartClient, ClientSettings, CommandOptions, Error, Item, Outcome};

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    Refused { code: String, detail: String },
    Unanswered { reason: String },
}

/// A command with its answer.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) planned: Arc<Planned>,
    pub(crate) answer: Answer,
    pub(crate) command_id: Option<Uuid>,
    /// The command and its attempts, with `--record`.
    pub(crate) recorded: Option<Recorded>,
    /// The time from when it was due (open loop) or first sent (closed loop) to its answer.
    pub(crate) latency: Duration,
}

/// A command for the file of `--record`.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) cart: CartId,
    pub(crate) key: String,
    pub(crate) command_id: Uuid,
    pub(crate) command: Sent,
    pub(crate) attempts: Vec<Attempt>,
}

/// Retries by cause, counted as they happen: while a service is unavailable, only these counts change.
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

    pub(crate) fn last_reason(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, failure: &AttemptFailure) {
        let count = match failure.kind {
            FailureKind::Pending => &self.pending,
            FailureKind::Unavailable => &self.unavailable,
            FailureKind::NotExecuted => &self.not_executed,
            FailureKind::Unknown => &self.unknown,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&failure.reason);
    }
}

/// How commands are sent in this run.
#[derive(Debug)]
pub(crate) struct Sender {
    clients: Vec<CartClient>,
    run_id: String,
    send_time: bool,
    records: bool,
    retry: Retry,
    pub(crate) retries: Retries,
}

impl Sender {
    pub(crate) fn new(args: &Args, run_id: String) -> Result<Self, Error> {
        let settings = ClientSettings {
            answer_timeout: args.answer_timeout,
            idle_connections_max: args.in_flight_max(),
            token: args.token.clone(),
            ca_cert: args.ca_cert.clone(),
            ..ClientSettings::default()
        };
        Ok(Self {
            clients: args.url.iter().map(|url| CartClient::new(url, &settings)).collect::<Result<_, _>>()?,
            run_id,
            send_time: !args.no_send_time,
            records: args.record.is_some(),
            retry: Retry { retry_for: args.retry_for, not_executed_for: args.retry_for, pause: args.retry_pause },
            retries: Retries::default(),
        })
    }

    /// Sends a command until it is answered or its time is over.
    pub(crate) async fn execute(&self, planned: Arc<Planned>) -> Finished {
        let sent_at = Instant::now();
        let counts_from = planned.due.unwrap_or(sent_at);
        let request = Request::of(&planned.command);
        let key = self.key(&planned);
        let options =
            CommandOptions { idempotency_key: Some(&key), command_time: self.send_time.then_some(planned.command.at) };
        let attempts = RefCell::new(Vec::new());
        let send = async |attempt| {
            let result = request.send(self.client(planned.sequence, attempt), options).await;
            if self.records {
                attempts.borrow_mut().push(Attempt::of(&result));
            }
            result.map(|outcome| outcome.map(|accepted| accepted.command_id()))
        };
        let completed = self.retry.run(planned.sequence, send, |failure| self.retries.note(failure)).await;
        let recorded = self.records.then(|| request.recorded(&key, attempts.take()));
        let (answer, command_id) = match completed {
            Ok(Completed::Accepted(command_id)) => (Answer::Accepted, Some(command_id)),
            Ok(Completed::Rejected(problem)) => {
                let refused = Answer::Refused { code: problem.code().to_owned(), detail: problem.detail };
                (refused, problem.command_id)
            }
            Err(gave_up) => (Answer::Unanswered { reason: gave_up.reason }, gave_up.pending),
        };
        Finished { planned, answer, command_id, recorded, latency: counts_from.elapsed() }
    }

    /// The line of `--record` for a command that was given up: it may have been sent.
    pub(crate) fn given_up(&self, planned: &Planned) -> Option<Recorded> {
        let attempts = vec![Attempt::Unknown { reason: "abandoned because the run was interrupted".to_owned() }];
        self.records.then(|| Request::of(&planned.command).recorded(&self.key(planned), attempts))
    }

    fn key(&self, planned: &Planned) -> String {
        format!("{}-{}", self.run_id, planned.sequence)
    }

    /// Selects a service in turn. A retry goes to the next one, so that an unavailable service only costs time.
    fn client(&self, sequence: u64, attempt: u32) -> &CartClient {
        let turn = sequence.wrapping_add(u64::from(attempt));
        let place = usize::try_from(turn % self.clients.len() as u64).unwrap_or_default();
        &self.clients[place]
    }
}

/// A command with the ids of its labels.
struct Request {
    cart: CartId,
    /// Without a member there is no cart, and its place in the path is empty.
    has_no_member: bool,
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
        Self { cart: CartId::of_member(&command.member), has_no_member: command.member.is_empty(), kind }
    }

    async fn send(&self, client: &CartClient, options: CommandOptions<'_>) -> Result<Outcome<Accepted>, Error> {
        let changed = |outcome: Outcome<_>| outcome.map(Accepted::Change);
        match &self.kind {
            Kind::Add(item) if self.has_no_member => client.add_to("", item, options).await.map(changed),
            Kind::Add(item) => client.add(self.cart, item, options).await.map(changed),
            Kind::Adjust(product, by) => client.adjust(self.cart, *product, *by, options).await.map(changed),
            Kind::Remove(product) => client.remove(self.cart, *product, options).await.map(changed),
            Kind::Checkout => client.checkout(self.cart, options).await.map(|outcome| outcome.map(Accepted::Purchase)),
        }
    }

    fn recorded(&self, key: &str, attempts: Vec<Attempt>) -> Recorded {
        let command = match &self.kind {
            Kind::Add(item) => Sent::Add(item.clone()),
            Kind::Adjust(product, by) => Sent::Adjust { product_id: *product, adjust_by: *by },
            Kind::Remove(product) => Sent::Remove { product_id: *product },
            Kind::Checkout => Sent::Checkout {},
        };
        let command_id = record::command_id(self.cart, key);
        Recorded { cart: self.cart, key: key.to_owned(), command_id, command, attempts }
    }
}
