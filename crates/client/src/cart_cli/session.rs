//! Executes commands on the cart of the current member, and keeps the history. Knows nothing of terminals.

use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::args::{Add, Command, Key, Settings};
use super::failure::{Failure, problem};
use super::names::{self, Member, Unresolved};
use crate::ids::{CartId, ProductId};
use crate::retry::{AttemptFailure, Completed, Retry};
use crate::{
    Cart, CartClient, ClientSettings, CommandOptions, Error, EventMessage, Execution, Item, ItemChange, Outcome,
    Purchase, error,
};

/// How many earlier commands a session keeps.
pub(crate) const HISTORY_LEN_MAX: usize = 1_000;

/// How long a command is retried that was certainly not executed: long enough for a restart of the service behind a balancer,
/// and short enough to report an unavailable service soon.
const NOT_EXECUTED_FOR: Duration = Duration::from_secs(2);

/// The first pause before a retry.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The outcome of a command.
#[derive(Debug)]
pub(crate) enum Done {
    Member(Member),
    Changed(Change, ItemChange),
    Bought(Purchase),
    Listed {
        cart: Cart,
        ids: bool,
    },
    Remembered(Vec<Entry>),
    /// Ctrl-C has ended it; its events are shown.
    Watched,
    /// The session ends.
    Exit,
}

/// The kind of change to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Removed,
    Adjusted,
}

/// A line of the session, with its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    pub(crate) command: String,
    pub(crate) outcome: String,
}

/// What a command reports while it is executed, and whether it can be interrupted.
pub(crate) struct Observer<'a> {
    /// Ctrl-C gives up the command instead of ending the process.
    pub(crate) is_interruptible: bool,
    /// Called with the reason of each retry.
    pub(crate) note: &'a mut dyn FnMut(&str),
    /// Called with each event of `watch`.
    pub(crate) show: &'a mut dyn FnMut(&EventMessage) -> Result<(), Failure>,
}

/// One user of one service.
#[derive(Debug)]
pub(crate) struct Session {
    client: CartClient,
    retry: Retry,
    /// Of a stream of events.
    reconnection: Retry,
    member: Option<Member>,
    history: VecDeque<Entry>,
}

impl Session {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Failure> {
        // The last retry begins before two thirds of the time are over, and takes a third at most. With the default timeout,
        // a third is longer than the service waits for an outcome.
        let third = settings.timeout() / 3;
        let client = ClientSettings {
            connect_timeout: third.min(ClientSettings::default().connect_timeout),
            answer_timeout: third,
            idle_connections_max: 1,
            token: settings.token.clone(),
            ca_cert: settings.ca_cert.clone(),
        };
        let retry = Retry {
            retry_for: 2 * third,
            not_executed_for: NOT_EXECUTED_FOR.min(2 * third),
            pause: RETRY_PAUSE.min(third),
        };
        Ok(Self {
            client: CartClient::new(&settings.url, &client).map_err(Failure::Client)?,
            reconnection: Retry { not_executed_for: retry.retry_for, ..retry.clone() },
            retry,
            member: settings.member.clone(),
            history: VecDeque::new(),
        })
    }

    pub(crate) fn client(&self) -> &CartClient {
        &self.client
    }

    pub(crate) fn member(&self) -> Option<&Member> {
        self.member.as_ref()
    }

    /// Adds a line and its outcome to the history.
    pub(crate) fn remember(&mut self, command: &str, outcome: &str) {
        if self.history.len() == HISTORY_LEN_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Entry { command: command.to_owned(), outcome: outcome.to_owned() });
    }

    /// Executes a command.
    pub(crate) async fn execute(&mut self, command: &Command, observer: Observer<'_>) -> Result<Done, Failure> {
        match command {
            Command::ChangeMember { name } => {
                self.member = Some(name.clone());
                Ok(Done::Member(name.clone()))
            }
            Command::CurrentMember => self.required_member().map(|member| Done::Member(member.clone())),
            Command::Add(add) => self.add(add, observer).await,
            Command::Remove { item, key } => self.remove(item, key, observer).await,
            Command::List { ids } => self.cart(observer).await.map(|cart| Done::Listed { cart, ids: *ids }),
            Command::Adjust { item, by, key } => self.adjust(item, *by, key, observer).await,
            Command::Checkout { key } => {
                let cart = self.required_member()?.cart();
                let send = async |options: CommandOptions<'_>| self.client.checkout(cart, options).await;
                self.run_command(cart, key, observer, send).await.map(Done::Bought)
            }
            Command::Watch { cart, after } => self.watch(cart.as_ref(), *after, observer).await,
            Command::History => Ok(Done::Remembered(self.history.iter().cloned().collect())),
            Command::Exit => Ok(Done::Exit),
        }
    }

    async fn add(&self, add: &Add, observer: Observer<'_>) -> Result<Done, Failure> {
        let cart = self.required_member()?.cart();
        let item = Item {
            product_id: names::product(add.product.as_ref().unwrap_or(&add.name)),
            vendor_id: names::vendor(&add.vendor),
            name: add.name.clone(),
            price: add.price.get(),
            quantity: add.quantity,
        };
        let send = async |options: CommandOptions<'_>| self.client.add(cart, &item, options).await;
        self.run_command(cart, &add.key, observer, send).await.map(|change| Done::Changed(Change::Added, change))
    }

    async fn remove(&self, item: &str, key: &Key, mut observer: Observer<'_>) -> Result<Done, Failure> {
        let cart = self.required_member()?.cart();
        let product = self.product(item, &mut observer).await?;
        let send = async |options: CommandOptions<'_>| self.client.remove(cart, product, options).await;
        self.run_command(cart, key, observer, send).await.map(|change| Done::Changed(Change::Removed, change))
    }

    async fn adjust(&self, item: &str, by: i64, key: &Key, mut observer: Observer<'_>) -> Result<Done, Failure> {
        let cart = self.required_member()?.cart();
        let product = self.product(item, &mut observer).await?;
        let send = async |options: CommandOptions<'_>| self.client.adjust(cart, product, by, options).await;
        self.run_command(cart, key, observer, send).await.map(|change| Done::Changed(Change::Adjusted, change))
    }

    fn required_member(&self) -> Result<&Member, Failure> {
        let missing = "no member is given; use --member NAME, CART_MEMBER or change-member NAME";
        self.member.as_ref().ok_or_else(|| Failure::usage(missing))
    }

    /// Finds the product with a name or an id. Names are looked up in the cart.
    async fn product(&self, text: &str, observer: &mut Observer<'_>) -> Result<ProductId, Failure> {
        if let Some(id) = names::id(text) {
            return Ok(ProductId(id));
        }
        let Observer { is_interruptible, note, show } = observer;
        let cart = self.cart(Observer { is_interruptible: *is_interruptible, note: *note, show: *show }).await?;
        names::find(&cart.items, text).map(|item| item.product_id).map_err(|unresolved| match unresolved {
            Unresolved::Ambiguous(text) => Failure::Usage(text),
            // The same problem as the service's.
            Unresolved::Absent(detail) => {
                Failure::Refused(problem("item-not-in-cart", "The item is not in the cart", 404, &detail))
            }
        })
    }

    async fn cart(&self, observer: Observer<'_>) -> Result<Cart, Failure> {
        let cart = self.required_member()?.cart();
        let send = async |_| read(self.client.cart(cart).await);
        let completed = tokio::select! {
            completed = self.retry.run(seed(), send, noting(observer.note)) => completed,
            () = interrupted(observer.is_interruptible) => {
                return Err(Failure::NotTaken { reason: "interrupted by Ctrl-C".to_owned() });
            }
        };
        match completed {
            Ok(Completed::Accepted(cart)) => Ok(cart),
            Ok(Completed::Rejected(problem)) => Err(Failure::Refused(problem)),
            // For a read it does not matter whether the service received it.
            Err(gave_up) => Err(Failure::away(&gave_up.reason)),
        }
    }

    /// Shows the events behind `after`, until Ctrl-C.
    async fn watch(&self, member: Option<&Member>, after: i64, observer: Observer<'_>) -> Result<Done, Failure> {
        let cart = member.map_or_else(|| self.required_member(), Ok)?.cart();
        let Observer { is_interruptible, note, show } = observer;
        let follow = async {
            let mut last = after;
            loop {
                let open = async |_| self.client.events(cart, last).await;
                let mut stream = match self.reconnection.run(seed(), open, noting(note)).await {
                    Ok(Completed::Accepted(stream)) => stream,
                    Ok(Completed::Rejected(problem)) => return Err(Failure::Refused(problem)),
                    Err(gave_up) => return Err(Failure::away(&gave_up.reason)),
                };
                let ended = loop {
                    match stream.next().await {
                        Ok(Some(message)) => {
                            show(&message)?;
                            last = message.id;
                        }
                        Ok(None) => break "the stream ended".to_owned(),
                        Err(error) if error.is_transient() => break error::chain(&error),
                        Err(error) => return Err(Failure::away(&error::chain(&error))),
                    }
                };
                note(&ended);
                tokio::time::sleep(stream.retry_pause()).await;
            }
        };
        tokio::select! {
            failed = follow => failed,
            () = interrupted(is_interruptible) => Ok(Done::Watched),
        }
    }

    /// Sends a command with its key until it has an outcome.
    async fn run_command<T>(
        &self,
        cart: CartId,
        key: &Key,
        observer: Observer<'_>,
        send: impl AsyncFn(CommandOptions<'_>) -> Result<Outcome<T>, Error>,
    ) -> Result<T, Failure> {
        let key = key.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        let options = CommandOptions { idempotency_key: Some(&key), command_time: None };
        let completed = tokio::select! {
            completed = self.retry.run(seed(), async |_| send(options).await, noting(observer.note)) => completed,
            () = interrupted(observer.is_interruptible) => {
                return Err(Failure::Unknown { reason: "interrupted by Ctrl-C".to_owned(), key });
            }
        };
        match completed {
            Ok(Completed::Accepted(accepted)) => Ok(accepted),
            Ok(Completed::Rejected(problem)) => Err(Failure::Refused(problem)),
            Err(gave_up) => Err(match (gave_up.pending, gave_up.execution) {
                (Some(command_id), _) => Failure::Pending { cart, command_id, key, reason: gave_up.reason },
                (None, Execution::Unknown) => Failure::Unknown { reason: gave_up.reason, key },
                (None, Execution::NotExecuted) => Failure::away(&gave_up.reason),
            }),
        }
    }
}

/// Converts the answer to a read to the outcome of a command.
fn read(result: Result<Cart, Error>) -> Result<Outcome<Cart>, Error> {
    match result {
        Ok(cart) => Ok(Outcome::Accepted(cart)),
        Err(Error::Refused(problem)) if problem.status == 503 => {
            Ok(Outcome::Unavailable { detail: problem.detail, retry_after: None })
        }
        Err(Error::Refused(problem)) if problem.status < 500 => Ok(Outcome::Rejected(problem)),
        Err(error) => Err(error),
    }
}

fn noting(note: &mut dyn FnMut(&str)) -> impl FnMut(&AttemptFailure) {
    |failure| note(&failure.reason)
}

/// Any seed will do, since there is only one command at a time.
fn seed() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

async fn interrupted(is_interruptible: bool) {
    // Without a listener Ctrl-C ends the process, which is right for a script.
    if !is_interruptible || tokio::signal::ctrl_c().await.is_err() {
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let settings = Settings {
            token: None,
            ca_cert: None,
            url: "http://127.0.0.1:1".to_owned(),
            member: None,
            timeout_ms: 3,
            json: false,
            keep_going: false,
        };
        Session::new(&settings).expect("good settings")
    }

    async fn execute(session: &mut Session, command: &Command) -> Result<Done, Failure> {
        session.execute(command, Observer { is_interruptible: false, note: &mut |_| {}, show: &mut |_| Ok(()) }).await
    }

    #[tokio::test]
    async fn without_a_member_there_is_no_cart() {
        let mut session = session();
        for command in [Command::CurrentMember, Command::List { ids: false }] {
            assert_eq!(execute(&mut session, &command).await.expect_err("whose?").exit_code(), 2);
        }
        let alice: Member = "alice".parse().expect("a member");
        assert!(execute(&mut session, &Command::ChangeMember { name: alice.clone() }).await.is_ok());
        let Ok(Done::Member(current)) = execute(&mut session, &Command::CurrentMember).await else { panic!("alice") };
        assert_eq!(current, alice);
        // No server listens on this port.
        let failure = execute(&mut session, &Command::List { ids: false }).await.expect_err("away");
        assert_eq!(failure.exit_code(), 3, "{failure}");
    }

    #[test]
    fn the_history_is_bounded() {
        let mut session = session();
        for number in 0..HISTORY_LEN_MAX + 5 {
            session.remember(&number.to_string(), "done");
        }
        assert_eq!(session.history.len(), HISTORY_LEN_MAX);
        assert_eq!(session.history[0].command, "5");
    }
}
