//! The end of a command that no version will decide: a record of `cart-control`, which the owner of the partition reads when it tries
//! the cart.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cart::contract::Contract as _;
use cart::{CartCommand, CartId, CommandId, Control, ControlKey, ParkingState, Position};
use cassandra::CassandraArgs;
use control::{Controls, signed};
use journal::{Codecs, Journal};
use kafka::{KafkaArgs, Registry};
use parking::{AllParked, request_retry};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::discarded::Discarded;
use super::letter::is_dead_letter;
use super::retry::INTERVAL;
use super::waiting::{Waiting, waiting};
use crate::operate::{Kafka, Outcome, Signed};

/// Give up the command at which a parked cart stands, and let the cart go on behind it
///
/// The command becomes a dead letter. Its client gets the problem `command-discarded`. The cart's later commands are decided in their
/// order.
///
/// A discard is like a changed rule for one command. Discard only what no running version decides: a command for which the version
/// panics that all cart-processors run. Where another process may have decided it, stop all cart-processors first, request the discard
/// with --wait-s 0, and start them.
///
/// Only the first waiting command can be discarded: whether a later one fails is known when those before it are decided. A cart is
/// refused that is not parked, or is being tried. A cart is refused whose journal cannot be read: no command is at fault. A command is
/// refused that the journal has. A discard cannot be taken back. If the command was decided meanwhile, the verb withdraws its discard.
///
/// Exit code 0: done, or with --wait-s 0 recorded. 1: refused. 2: not found out, the try failed again, or the cart was not tried in time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example; `cartctl parked show CART` lists the commands with their ids:
  cartctl parked discard CART --command ID --reason 'the rule panics for it'")]
pub(super) struct DiscardArgs {
    /// The cart
    #[arg(value_name = "CART")]
    cart: CartId,

    /// The first of its waiting commands
    #[arg(long, value_name = "ID")]
    command: CommandId,

    #[command(flatten)]
    signed: Signed,

    /// Wait at most so many seconds until the cart has gone past the command; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    wait_s: u64,

    /// Only show what would be recorded
    #[arg(long)]
    dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    cassandra: CassandraArgs,
}

/// What an error of [`AllParked::read`] is about.
const READING: &str = "reading the parked carts";

/// Where a command is, and the hash of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    partition: i32,
    position: Position,
    sha256: String,
    /// The offsets of later waiting commands with the same id.
    repeats: Vec<i64>,
}

/// What became of a try.
enum Progress {
    /// The cart has gone past the command.
    Past,
    /// The cart is parked again, for this reason.
    Failed(String),
    NotTried,
}

/// Records the discard, requests another try of the cart, and waits for it.
pub(super) async fn discard(args: &DiscardArgs) -> anyhow::Result<Outcome<Discarded>> {
    let kafka = Kafka::connect(&args.kafka).await?;
    let controls = block_in_place(|| kafka.control.controls())?;
    let standing = place(args, &AllParked::read(&args.kafka).await.context(READING)?).await?;
    let known = known(&controls, args, standing.as_ref().ok());
    let was_there = known.is_some();
    let (place, is_standing) = match (standing, known) {
        (Ok(place), _) => (place, true),
        (Err(reason), None) => return Ok(Outcome::Refused(reason)),
        (Err(_), Some(place)) => (place, false),
    };
    let session = Arc::new(cassandra::connect(&args.cassandra).await?);
    let journal = Journal::open(session, Codecs::register(&Registry::new(&args.kafka)?).await?).await?;
    let verb = Verb { args, kafka, journal, place, was_there };
    if !was_there && verb.is_journalled().await? {
        let reason = "the command was decided, and the journal has it: `cartctl parked retry` publishes its events";
        return Ok(Outcome::Refused(reason.to_owned()));
    }
    if args.dry_run {
        return Ok(Outcome::Done(verb.shown(&Progress::NotTried)));
    }
    if !was_there {
        let Place { position, sha256, .. } = verb.place.clone();
        let control = Control::Discard { cart_id: args.cart, command_id: args.command, position, sha256 };
        verb.record(&args.signed.reason, control).await?;
    }
    if is_standing {
        let cart = (verb.place.partition, args.cart);
        request_retry(&args.kafka, &[cart], &args.signed.by).await.context("requesting another try")?;
    }
    verb.settle().await
}

/// The newest discard of the command that is recorded; if the cart stands at the command, the one for that place.
fn known(controls: &Controls, args: &DiscardArgs, standing: Option<&Place>) -> Option<Place> {
    let of_command = controls.discards().filter(|one| (one.cart_id, one.command_id) == (args.cart, args.command));
    let there = of_command
        .filter(|one| standing.is_none_or(|place| (one.partition, one.position) == (place.partition, place.position)));
    let newest = there.max_by_key(|one| one.entry.offset)?;
    let (partition, position, sha256) = (newest.partition, newest.position, newest.sha256.to_owned());
    Some(Place { partition, position, sha256, repeats: Vec::new() })
}

/// A discard that is carried out.
struct Verb<'a> {
    args: &'a DiscardArgs,
    kafka: Kafka,
    journal: Journal,
    place: Place,
    was_there: bool,
}

impl Verb<'_> {
    fn shown(&self, progress: &Progress) -> Discarded {
        let (args, place) = (self.args, &self.place);
        let record = |offset: i64| format!("{}/{}/{offset}", CartCommand::TOPIC, place.partition);
        let failed = if let Progress::Failed(reason) = progress { Some(reason.clone()) } else { None };
        Discarded {
            cart_id: args.cart,
            command_id: args.command,
            record: record(place.position.offset()),
            is_dry_run: args.dry_run,
            was_there: self.was_there,
            is_past: matches!(progress, Progress::Past),
            failed,
            repeats: place.repeats.iter().map(|offset| record(*offset)).collect(),
        }
    }

    async fn record(&self, reason: &str, control: Control) -> anyhow::Result<()> {
        let key = ControlKey::Discard { partition: self.place.partition, offset: self.place.position.offset() };
        self.kafka.control.send(&key, Some(&signed(&self.args.signed.by, reason, control))).await?;
        Ok(())
    }

    async fn is_journalled(&self) -> anyhow::Result<bool> {
        let rows = self.journal.between(self.args.cart, self.place.position, self.place.position).await;
        Ok(!rows.context("whether the command was decided is not known")?.is_empty())
    }

    async fn is_dead_letter(&self) -> anyhow::Result<bool> {
        let (kafka, place) = (self.args.kafka.clone(), self.place.clone());
        let origin = (place.partition, place.position.offset());
        let read = tokio::task::spawn_blocking(move || is_dead_letter(&kafka, origin, &place.sha256));
        read.await?.context("whether the command is a dead letter is not known")
    }

    /// Waits for the try, and withdraws the discard if the command was decided meanwhile, after a repair for example: what is decided
    /// stays decided.
    async fn settle(&self) -> anyhow::Result<Outcome<Discarded>> {
        let progress = self.follow().await?;
        let is_past = matches!(progress, Progress::Past);
        let is_letter = is_past && self.is_dead_letter().await?;
        let is_journalled = self.is_journalled().await?;
        if is_letter && is_journalled {
            bail!(
                "the command is a dead letter, and the journal has a row of it: another process has decided it too. `cartctl \
                 audit` shows what differs; then see 'Discard a command' in docs/operations.md"
            );
        }
        // A repeat, and a rejected request without a key, leave no row.
        if is_journalled || (is_past && !is_letter) {
            let reason = "the command was decided meanwhile";
            self.record(reason, Control::Withdraw {}).await?;
            return Ok(Outcome::Refused(format!("{reason}; the discard is withdrawn")));
        }
        let discarded = self.shown(&progress);
        let is_done = is_past || (self.args.wait_s == 0 && discarded.failed.is_none());
        Ok(if is_done { Outcome::Done(discarded) } else { Outcome::Waiting(discarded) })
    }

    /// Waits until the cart has gone past the command, or was tried and is parked again.
    async fn follow(&self) -> anyhow::Result<Progress> {
        let deadline = Instant::now() + Duration::from_secs(self.args.wait_s);
        loop {
            let parked = AllParked::read(&self.args.kafka).await.context(READING)?;
            let progress = progress(&parked, self.args.cart, self.place.position);
            if !matches!(progress, Progress::NotTried) || Instant::now() >= deadline {
                return Ok(progress);
            }
            sleep(INTERVAL).await;
        }
    }
}

fn progress(parked: &AllParked, cart_id: CartId, position: Position) -> Progress {
    match parked.cart(cart_id) {
        Some((_, cart)) if cart.holds(position) => {
            let waits = cart.state != ParkingState::Parked || parked.requested.contains(&cart_id);
            if waits { Progress::NotTried } else { Progress::Failed(cart.reason.clone()) }
        }
        Some(_) | None => Progress::Past,
    }
}

/// Where the command is that is meant, if the cart stands at it; otherwise why it is not discarded.
async fn place(args: &DiscardArgs, parked: &AllParked) -> anyhow::Result<Result<Place, String>> {
    let cart_id = args.cart;
    let Some((partition, cart)) = parked.cart(cart_id) else {
        return Ok(Err(format!("cart {cart_id} is not parked")));
    };
    if cart.state != ParkingState::Parked || parked.requested.contains(&cart_id) {
        let hint = "wait until `cartctl parked` lists it as parked, or no more";
        return Ok(Err(format!("cart {cart_id} is being tried: {hint}")));
    }
    if cart.reason_code() == "journal-unreadable" {
        let hint = "no command is at fault; repair the journal, then `cartctl parked retry`";
        return Ok(Err(format!("cart {cart_id} cannot be read ({}): {hint}", cart.reason)));
    }
    let epoch = cart.next_position.epoch().context("the cart's marker has no position")?;
    let mut of_cart = parked.clone();
    of_cart.carts.retain(|(_, id), _| *id == cart_id);
    let waiting = waiting(&args.kafka, &of_cart).await?.remove(&cart_id).unwrap_or_default();
    Ok(first(&waiting, args.command).map(|first| Place {
        partition,
        position: Position::new(epoch, first.offset),
        sha256: first.sha256.clone(),
        repeats: repeats(&waiting),
    }))
}

fn id(one: &Waiting) -> Option<CommandId> {
    one.command.as_ref().map(|command| command.command_id)
}

/// The offsets of the waiting commands that have the id of the first.
fn repeats(waiting: &[Waiting]) -> Vec<i64> {
    let Some((first, later)) = waiting.split_first() else { return Vec::new() };
    later.iter().filter(|one| id(first).is_some() && id(one) == id(first)).map(|one| one.offset).collect()
}

/// The first waiting command, if it is the one that is meant.
fn first(waiting: &[Waiting], command_id: CommandId) -> Result<&Waiting, String> {
    let first = waiting.first().ok_or("no command of the cart waits")?;
    let Some(stands_at) = id(first) else {
        let reason = first.too_new.as_deref().unwrap_or_default();
        return Err(format!("the cart stands at offset {} ({reason}): use the cartctl of that version", first.offset));
    };
    if stands_at == command_id {
        return Ok(first);
    }
    if waiting.iter().any(|one| id(one) == Some(command_id)) {
        return Err(format!(
            "the cart stands at command {stands_at}; what becomes of {command_id} is known when that is decided or discarded"
        ));
    }
    Err(format!(
        "command {command_id} does not wait: it was decided, or is of another cart; the cart stands at {stands_at}"
    ))
}

#[cfg(test)]
mod tests {
    use cart::{Command, LogEpoch, ParkedCart};
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> CommandId {
        Uuid::from_u128(number).into()
    }

    fn known(offset: i64, number: u128) -> Waiting {
        let command = CartCommand {
            command_id: id(number),
            cart_id: Uuid::nil().into(),
            issued_at: DateTime::UNIX_EPOCH,
            command: Command::Checkout {},
            expected_version: None,
            keyed: None,
        };
        Waiting { offset, command: Some(command), too_new: None, at: None, sha256: String::from("00") }
    }

    #[test]
    fn only_the_command_at_which_the_cart_stands_is_discarded() {
        let waiting = [known(4, 1), known(7, 2)];
        assert_eq!(first(&waiting, id(1)).map(|first| first.offset), Ok(4));
        let refused =
            |waiting: &[Waiting], number| first(waiting, id(number)).map(|first| first.offset).expect_err("refused");
        let later = refused(&waiting, 2);
        assert!(later.starts_with(&format!("the cart stands at command {}", id(1))), "{later}");
        assert!(refused(&waiting, 3).contains("does not wait"));
        assert_eq!(refused(&[], 1), "no command of the cart waits");
        let too_new = Waiting { command: None, too_new: Some(String::from("branch 6")), ..known(3, 0) };
        let unread = refused(&[too_new, known(4, 1)], 1);
        assert!(unread.starts_with("the cart stands at offset 3 (branch 6)"), "{unread}");
    }

    #[test]
    fn later_commands_with_the_same_id_are_named() {
        assert_eq!(repeats(&[known(4, 1), known(7, 2), known(9, 1)]), [9]);
        let too_new = |offset| Waiting { command: None, too_new: Some(String::from("branch 6")), ..known(offset, 0) };
        assert!(repeats(&[too_new(4), too_new(7)]).is_empty() && repeats(&[]).is_empty(), "their ids are not known");
    }

    #[test]
    fn a_try_that_has_failed_again_is_not_waited_for() {
        let cart_id = CartId::from(Uuid::nil());
        let at = |offset| Position::new(LogEpoch::FIRST, offset);
        let parked = |state, next: i64, requested: &[CartId]| {
            let reason = String::from("rule-panicked: again");
            let since = DateTime::UNIX_EPOCH;
            let cart = ParkedCart { first_position: at(3), next_position: at(next), state, reason, since };
            AllParked { carts: [((0, cart_id), cart)].into(), requested: requested.to_vec() }
        };
        let after = |parked: &AllParked| progress(parked, cart_id, at(4));
        assert!(matches!(after(&parked(ParkingState::Parked, 4, &[cart_id])), Progress::NotTried));
        assert!(matches!(after(&parked(ParkingState::Retrying, 4, &[])), Progress::NotTried));
        let failed = after(&parked(ParkingState::Parked, 4, &[]));
        assert!(matches!(failed, Progress::Failed(reason) if reason == "rule-panicked: again"));
        assert!(matches!(after(&parked(ParkingState::Parked, 5, &[])), Progress::Past), "it stands at a later one");
        assert!(matches!(after(&AllParked::default()), Progress::Past));
    }
}
