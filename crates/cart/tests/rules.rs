//! The rules, one line each: given these commands, when this command comes, then this is the result.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use cart::{
    Aggregate, Cart, CartCommand, CartEvent, Command, CommandId, Decided, Decision, Event, LogEpoch, Outcome, Position,
    Refusal, Rejection, SessionId,
};
use chrono::{DateTime, TimeDelta};
use proptest::prelude::*;
use uuid::Uuid;

fn id<T: From<Uuid>>(n: u16) -> T {
    Uuid::from_u128(u128::from(n)).into()
}

fn add(product: u16, quantity: i32) -> Command {
    Command::AddItem {
        product_id: id(product),
        vendor_id: id(2_000),
        name: String::from("red mug").try_into().unwrap(),
        price: "3.50".parse().unwrap(),
        quantity,
    }
}

fn remove(product: u16) -> Command {
    Command::RemoveItem { product_id: id(product) }
}

fn adjust(product: u16, by: i32) -> Command {
    Command::AdjustQuantity { product_id: id(product), adjust_by: by.try_into().unwrap() }
}

const CHECKOUT: Command = Command::Checkout {};

/// Events as text: the name, the product and the quantity.
fn event_text(events: &[Event]) -> String {
    let one = |event: &Event| {
        let name = format!("{event:?}").split(' ').next().unwrap().to_owned();
        format!("{name} {}x{}", event.item().quantity.get(), event.item().product_id.as_uuid().as_u128())
    };
    events.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn check(given: &[Command], when: Command, then: Result<&str, Rejection>) {
    check_batch(given, when, then.map_err(Refusal::from));
}

fn check_batch(given: &[Command], when: Command, then: Result<&str, Refusal>) {
    let mut cart = Cart::default();
    for command in given {
        for event in cart.decide(command).unwrap() {
            cart.evolve(&event);
        }
    }
    assert_eq!(cart.decide(&when).map(|events| event_text(&events)), then.map(str::to_owned), "{given:?} {when:?}");
}

#[test]
fn an_item_is_added_once() {
    check(&[], add(1, 2), Ok("ItemAdded 2x1"));
    check(&[add(1, 2)], add(1, 5), Err(Rejection::ItemAlreadyInCart));
    check(&[add(1, 2), remove(1)], add(1, 5), Ok("ItemAdded 5x1"));
    check(&[add(1, 2), CHECKOUT], add(1, 5), Ok("ItemAdded 5x1"));
}

#[test]
fn only_what_is_there_is_removed_or_adjusted() {
    check(&[add(1, 2)], remove(1), Ok("ItemRemoved 2x1"));
    check(&[add(1, 2)], remove(2), Err(Rejection::ItemNotInCart));
    check(&[add(1, 2)], adjust(1, 3), Ok("ItemQuantityIncreased 5x1"));
    check(&[add(1, 2)], adjust(1, -1), Ok("ItemQuantityDecreased 1x1"));
    check(&[], adjust(1, 1), Err(Rejection::ItemNotInCart));
    check(&[add(1, 2), CHECKOUT], remove(1), Err(Rejection::ItemNotInCart));
}

#[test]
fn a_quantity_stays_within_its_range() {
    check(&[], add(1, 0), Err(Rejection::NegativeQuantity { quantity: 0 }));
    check(&[], add(1, -3), Err(Rejection::NegativeQuantity { quantity: -3 }));
    check(&[], add(1, 1_000_001), Err(Rejection::QuantityTooLarge { quantity: 1_000_001, max: 1_000_000 }));
    check(&[add(1, 2)], adjust(1, -2), Err(Rejection::NegativeQuantity { quantity: 0 }));
    check(&[add(1, 2)], adjust(1, i32::MIN), Err(Rejection::NegativeQuantity { quantity: 2 + i64::from(i32::MIN) }));
    check(
        &[add(1, 2)],
        adjust(1, i32::MAX),
        Err(Rejection::QuantityTooLarge { quantity: 2_147_483_649, max: 1_000_000 }),
    );
}

#[test]
fn a_checkout_buys_every_line_of_a_cart_that_has_one() {
    check(&[], CHECKOUT, Err(Rejection::EmptyCartCheckout));
    check(&[add(1, 2), add(2, 1)], CHECKOUT, Ok("ItemPurchased 2x1, ItemPurchased 1x2"));
    check(&[add(1, 2), CHECKOUT], CHECKOUT, Err(Rejection::EmptyCartCheckout));
}

#[test]
fn a_cart_has_at_most_so_many_lines() {
    let full: Vec<Command> = (1..=1_000).map(|product| add(product, 1)).collect();
    check(&full[1..], add(1_001, 1), Ok("ItemAdded 1x1001"));
    check(&full, add(1_001, 1), Err(Rejection::CartFull { max: 1_000 }));
    check_batch(
        &full[1..],
        batch(&[add(1, 1), add(1_001, 1)]),
        Err(Refusal { rejection: Rejection::CartFull { max: 1_000 }, index: Some(1) }),
    );
}

fn batch(commands: &[Command]) -> Command {
    Command::Batch { commands: commands.to_vec() }
}

#[test]
fn a_batch_is_decided_in_order_and_all_or_none() {
    let all = "ItemAdded 2x1, ItemQuantityIncreased 5x1, ItemPurchased 5x1, ItemAdded 1x1";
    check_batch(&[], batch(&[add(1, 2), adjust(1, 3), CHECKOUT, add(1, 1)]), Ok(all));
    let refused = |rejection, index| Err(Refusal { rejection, index: Some(index) });
    check_batch(&[add(1, 2)], batch(&[add(2, 1), add(1, 2)]), refused(Rejection::ItemAlreadyInCart, 1));
    check_batch(&[], batch(&[add(1, 1), CHECKOUT, CHECKOUT]), refused(Rejection::EmptyCartCheckout, 2));
}

fn each(commands: &[Command]) -> Command {
    Command::IndependentBatch { commands: commands.to_vec() }
}

/// A keyed command.
fn command(number: u16, command: Command) -> CartCommand {
    CartCommand {
        command_id: CommandId::from(Uuid::from_u128(u128::from(number))),
        cart_id: id(9),
        issued_at: DateTime::UNIX_EPOCH,
        command,
        expected_version: None,
        keyed: Some(true),
    }
}

fn unkeyed(number: u16, one: Command) -> CartCommand {
    CartCommand { keyed: Some(false), ..command(number, one) }
}

/// A command of a producer before version 0.2.
fn old(number: u16, one: Command) -> CartCommand {
    CartCommand { keyed: None, ..command(number, one) }
}

fn position(offset: i64) -> Position {
    Position::new(LogEpoch::FIRST, offset)
}

/// A cart and its next position in the log.
struct Shop {
    cart: Aggregate,
    offset: i64,
}

impl Shop {
    fn new() -> Self {
        Self { cart: Aggregate::new(id(9)), offset: 0 }
    }

    fn decide(&mut self, command: &CartCommand) -> Decision {
        self.offset += 1;
        self.cart.decide(command, position(self.offset))
    }

    /// Decides a command, and applies what would be journalled.
    fn send(&mut self, command: &CartCommand) -> Decided {
        let Decision::Decided(decided) = self.decide(command) else { panic!("{command:?} was decided before") };
        if decided.is_journalled() {
            self.cart.apply(&decided);
        }
        decided
    }

    /// Decides a repeat. Returns the number of the last event of the first request.
    fn repeat(&mut self, command: &CartCommand) -> i64 {
        let decision = self.decide(command);
        let Decision::Repeated(earlier) = decision else { panic!("{command:?} is {decision:?}") };
        earlier.sequence_number.get()
    }

    /// Adds other requests with this time to the remembered ones.
    fn send_others(&mut self, numbers: std::ops::Range<u16>, issued_at: DateTime<chrono::Utc>) {
        for number in numbers {
            let by = if number % 2 == 0 { 1 } else { -1 };
            self.send(&CartCommand { issued_at, ..command(number, adjust(1, by)) });
        }
    }
}

fn outcome(decided: &Decided) -> Outcome {
    decided.outcome_with(|_| panic!("nothing was done earlier")).unwrap()
}

/// An outcome as text: the version and the number of items, or the rejection.
fn text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::ItemChanged { version, .. } => format!("{version}"),
        Outcome::CheckedOut { version, items, .. } => format!("{version} bought {}", items.len()),
        Outcome::Rejected { rejection, .. } => format!("{rejection:?}"),
        Outcome::Batch { outcomes } | Outcome::IndependentBatch { outcomes } => {
            outcomes.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        Outcome::Parked { reason } => panic!("no rule parks: {reason}"),
    }
}

#[test]
fn the_reply_to_a_batch_tells_the_outcome_of_each_command_in_its_session() {
    let commands = [add(1, 2), add(2, 1), CHECKOUT, add(1, 1)];
    for both in [batch(&commands), each(&commands)] {
        let mut shop = Shop::new();
        let decided = shop.send(&command(1, both.clone()));
        let sessions: Vec<_> = decided.events.iter().map(|event| event.session_id).collect();
        let [first, second] = [0, 1].map(|number| SessionId::of(id(9), number));
        assert_eq!(sessions, [first, first, first, first, second]);
        assert_eq!(text(&outcome(&decided)), "1, 2, 4 bought 2, 5");
        assert_eq!(shop.repeat(&command(1, both)), 5);
    }
}

#[test]
fn an_independent_batch_is_decided_command_by_command() {
    let mut shop = Shop::new();
    let one = command(1, each(&[remove(1), add(1, 2), add(1, 3), adjust(1, 1), CHECKOUT, CHECKOUT]));
    let decided = shop.send(&one);
    assert_eq!(text(&outcome(&decided)), "ItemNotInCart, 1, ItemAlreadyInCart, 2, 3 bought 1, EmptyCartCheckout");
    assert_eq!(shop.cart.sequence_number().get(), 3);
    // The repeat has the same outcome, and removes nothing.
    assert_eq!(shop.repeat(&one), 3);
    let nothing = shop.send(&command(2, each(&[remove(1), CHECKOUT])));
    assert_eq!(text(&outcome(&nothing)), "ItemNotInCart, EmptyCartCheckout");
    assert!(nothing.events.is_empty() && nothing.is_journalled());
    // The condition is part of the request.
    let late = CartCommand { expected_version: Some(2.into()), ..command(3, each(&[add(1, 1)])) };
    assert_eq!(text(&outcome(&shop.send(&late))), "VersionMismatch { version: SequenceNumber(3) }");
}

#[test]
fn a_key_stands_for_one_request() {
    let at = |version: i64, one: CartCommand| CartCommand { expected_version: Some(version.into()), ..one };
    let later = |one: CartCommand| CartCommand { issued_at: DateTime::UNIX_EPOCH + TimeDelta::days(1), ..one };
    let one = |one| command(1, one);
    for (first, other) in [
        (one(add(1, 1)), one(each(&[CHECKOUT]))),
        (one(each(&[add(1, 1)])), one(each(&[add(1, 1), CHECKOUT]))),
        (one(each(&[add(1, 1)])), one(add(1, 1))),
        (one(batch(&[add(1, 1)])), one(each(&[add(1, 1)]))),
        (one(each(&[add(1, 1)])), one(batch(&[add(1, 1)]))),
        (one(add(1, 1)), one(add(1, 2))),
        (one(add(1, 1)), at(0, one(add(1, 1)))),
        (at(0, one(add(1, 1))), one(add(1, 1))),
        (at(0, one(add(1, 1))), at(1, one(add(1, 1)))),
        (one(CHECKOUT), one(add(1, 1))),
    ] {
        let mut shop = Shop::new();
        shop.send(&first);
        let before = shop.cart.clone();
        assert_eq!(shop.decide(&other), Decision::KeyReused, "{first:?} {other:?}");
        assert!(matches!(shop.decide(&later(first.clone())), Decision::Repeated(_)), "{first:?}");
        assert_eq!(shop.cart, before);
    }
}

#[test]
fn a_rejected_request_stays_rejected_under_its_key() {
    let mut shop = Shop::new();
    let checkout = command(1, CHECKOUT);
    assert_eq!(text(&outcome(&shop.send(&checkout))), "EmptyCartCheckout");
    shop.send(&command(2, add(1, 1)));
    assert_eq!(shop.repeat(&checkout), 0);
    // Without a key each is a new request, and nothing is remembered.
    let mut shop = Shop::new();
    let before = shop.cart.clone();
    assert!(!shop.send(&unkeyed(1, CHECKOUT)).is_journalled());
    assert_eq!(shop.cart, before);
    shop.send(&unkeyed(2, add(1, 1)));
    assert_eq!(text(&outcome(&shop.send(&unkeyed(1, CHECKOUT)))), "2 bought 1");
    assert_eq!(shop.cart.requests().count(), 0);
}

#[test]
fn a_batch_is_one_request_of_the_memory() {
    let mut shop = Shop::new();
    shop.send(&command(1, add(1, 1)));
    let hundred = command(2, each(&vec![adjust(1, 1); 100]));
    shop.send(&hundred);
    shop.send(&command(3, adjust(1, 1)));
    assert_eq!(shop.repeat(&hundred), 101);
    assert_eq!(shop.cart.cart().items()[0].quantity.get(), 102);
}

#[test]
fn the_newest_hundred_requests_are_remembered_and_older_ones_for_a_day() {
    let day = |hours| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
    let first = command(1, add(1, 2));
    let mut shop = Shop::new();
    shop.send(&first);
    // Within a day, many more than a hundred.
    shop.send_others(100..500, day(24));
    assert_eq!(shop.repeat(&first), 1);
    // A day and an hour later, the next request makes the cart forget all but a hundred.
    shop.send_others(500..501, day(49));
    assert!(matches!(shop.decide(&first), Decision::Decided(_)));
    assert_eq!(shop.cart.requests().count(), 100);
    // The newest hundred are never forgotten.
    let mut shop = Shop::new();
    shop.send(&first);
    shop.send_others(100..199, day(10_000));
    assert_eq!(shop.repeat(&first), 1);
    shop.send_others(199..200, day(10_000));
    assert!(matches!(shop.decide(&first), Decision::Decided(_)));
    // Never more than a thousand.
    let mut shop = Shop::new();
    shop.send(&first);
    shop.send_others(100..1_099, day(0));
    assert_eq!(shop.repeat(&first), 1);
    shop.send_others(1_099..1_100, day(0));
    assert!(matches!(shop.decide(&first), Decision::Decided(_)));
}

#[test]
fn commands_from_before_version_0_2_are_decided_as_they_were_then() {
    let mut shop = Shop::new();
    // Rejected requests were not remembered.
    assert!(!shop.send(&old(1, CHECKOUT)).is_journalled());
    shop.send(&old(2, add(1, 2)));
    assert_eq!(text(&outcome(&shop.send(&old(1, CHECKOUT)))), "2 bought 1");
    // The condition was not part of the request, and other requests with its id were rejected.
    assert_eq!(shop.repeat(&CartCommand { expected_version: Some(7.into()), ..old(2, add(1, 2)) }), 1);
    assert_eq!(shop.decide(&old(2, add(1, 3))), Decision::KeyReused);
    // The newest hundred, of any time.
    let mut shop = Shop::new();
    shop.send(&old(1, add(1, 2)));
    shop.send_others(100..199, DateTime::UNIX_EPOCH);
    assert_eq!(shop.repeat(&old(1, add(1, 2))), 1);
    shop.send_others(199..200, DateTime::UNIX_EPOCH);
    assert!(matches!(shop.decide(&old(1, add(1, 2))), Decision::Decided(_)));
    // A retry after the upgrade is a repeat.
    assert_eq!(shop.repeat(&command(1, add(1, 2))), 1);
}

#[test]
fn commands_of_a_batch_from_before_version_0_2_are_repeats() {
    let both = CommandId::from(Uuid::from_u128(1));
    let part = |index, one| CartCommand { command_id: both.in_batch(index), ..old(0, one) };
    let mut shop = Shop::new();
    shop.send(&part(0, add(1, 2)));
    shop.send(&part(1, add(2, 2)));
    let retry = shop.send(&command(1, each(&[add(1, 2), add(2, 3), add(3, 2)])));
    let known = Outcome::Rejected { rejection: Rejection::EmptyCartCheckout, index: None };
    assert_eq!(retry.earlier().map(cart::SequenceNumber::get).collect::<Vec<_>>(), [1]);
    let outcome = retry.outcome_with(|number| (number.get() == 1).then(|| known.clone())).unwrap();
    assert_eq!(text(&outcome), "EmptyCartCheckout, IdempotencyKeyReused, 3");
}

#[test]
fn a_condition_on_the_version_holds_where_the_command_stands_in_the_log() {
    let mut shop = Shop::new();
    let conditional =
        |number, version: i64, one| CartCommand { expected_version: Some(version.into()), ..command(number, one) };
    let first = conditional(1, 0, add(1, 2));
    shop.send(&first);
    let late = conditional(2, 0, add(2, 1));
    assert_eq!(text(&outcome(&shop.send(&late))), "VersionMismatch { version: SequenceNumber(1) }");
    assert_eq!(text(&outcome(&shop.send(&conditional(3, 1, add(2, 1))))), "2");
    // A repeat gets its first outcome, although the command itself has changed the version.
    assert_eq!(shop.repeat(&first), 1);
    assert_eq!(shop.repeat(&late), 0);
}

#[test]
fn the_reply_to_a_checkout_names_the_session_that_was_bought() {
    let mut shop = Shop::new();
    shop.send(&command(1, add(1, 2)));
    let bought = shop.cart.session_id();
    let decided = shop.send(&command(2, CHECKOUT));
    let Outcome::CheckedOut { session_id, .. } = outcome(&decided) else { panic!() };
    assert_eq!(session_id, bought);
    assert_eq!(shop.cart.session_id(), SessionId::of(id(9), 1));
}

#[test]
fn no_key_is_the_name_of_an_event_or_a_session() {
    let key = |key: &str| CommandId::of_idempotency_key(id(9), key).as_uuid();
    let event = cart::EventId::of(id(9), 1.into()).as_uuid();
    assert_ne!(key("event:1"), event);
    assert_ne!(key("session:0"), SessionId::of(id(9), 0).as_uuid());
    assert_ne!(key("key:event:1"), key("event:1"));
    // Other keys are used unchanged.
    let cart_id: cart::CartId = id(9);
    for plain in ["a", "events:1", "Event:1", "batch:0", " key:1"] {
        assert_eq!(key(plain), Uuid::new_v5(&cart_id.as_uuid(), plain.as_bytes()), "{plain}");
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        9 => any_single(),
        1 => prop::collection::vec(any_single(), 1..6).prop_map(|commands| batch(&commands)),
        2 => prop::collection::vec(any_single(), 1..6).prop_map(|commands| each(&commands)),
    ]
}

fn any_single() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (0_u16..5, -1_i32..4).prop_map(|(product, quantity)| add(product, quantity)),
        2 => (0_u16..5, prop_oneof![-3_i32..0, 1_i32..4]).prop_map(|(product, by)| adjust(product, by)),
        1 => (0_u16..5).prop_map(remove),
        1 => Just(CHECKOUT),
    ]
}

fn any_keyed() -> impl Strategy<Value = Option<bool>> {
    prop_oneof![Just(Some(true)), Just(Some(false)), Just(None)]
}

proptest! {
    /// For any commands: numbers have no gap, quantities stay in range, and a cart that is rebuilt from the journal, from any
    /// snapshot on, is the same cart.
    #[test]
    fn a_cart_can_be_rebuilt_from_the_journal(
        commands in prop::collection::vec((any_command(), 0_u16..40, any_keyed()), 1..120)
    ) {
        let mut shop = Shop::new();
        let mut journal: Vec<Decided> = Vec::new();
        let mut snapshots = vec![shop.cart.clone()];
        for (one, number, keyed) in commands {
            let command = CartCommand { keyed, ..command(number, one) };
            let decision = shop.decide(&command);
            prop_assert_eq!(&decision, &shop.cart.decide(&command, position(shop.offset)));
            let Decision::Decided(decided) = decision else { continue };
            if decided.is_journalled() {
                shop.cart.apply(&decided);
                journal.push(decided);
                snapshots.push(shop.cart.clone());
            }
            prop_assert!(shop.cart.cart().items().iter().all(|item| item.quantity.get() >= 1));
        }
        let events: Vec<&CartEvent> = journal.iter().flat_map(|decided| &decided.events).collect();
        for (expected, event) in (1..).zip(&events) {
            prop_assert_eq!(event.sequence_number.get(), expected);
        }
        for mut snapshot in snapshots {
            let known = snapshot.position();
            journal.iter().filter(|decided| decided.position > known).for_each(|decided| snapshot.apply(decided));
            prop_assert_eq!(&snapshot, &shop.cart);
        }
    }

    /// Compares requests that are sent once with the same requests and their retries: after the first delivery of each, in
    /// any order, any number of times. Each retry has the outcome of the first delivery, and the cart is the same.
    #[test]
    fn repeats_change_nothing(
        requests in prop::collection::vec(any_command(), 1..60),
        repeats in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..120),
    ) {
        let requests: Vec<_> = (1..).zip(requests).map(|(number, one)| command(number, one)).collect();
        let mut once = Shop::new();
        let first: Vec<Decided> = requests.iter().map(|request| once.send(request)).collect();
        // The requests that are repeated after each request.
        let mut again: Vec<Vec<usize>> = vec![Vec::new(); requests.len()];
        for (which, behind) in repeats {
            let behind = behind.index(requests.len());
            again[behind].push(which.index(behind + 1));
        }
        let mut shop = Shop::new();
        for (place, request) in requests.iter().enumerate() {
            let decided = shop.send(request);
            prop_assert_eq!(&decided.outcome, &first[place].outcome);
            let made = |decided: &Decided| decided.events.iter().map(|event| event.event.clone()).collect::<Vec<_>>();
            prop_assert_eq!(made(&decided), made(&first[place]));
            for which in &again[place] {
                prop_assert_eq!(shop.repeat(&requests[*which]), first[*which].sequence_number().get());
            }
        }
        prop_assert_eq!(shop.cart.cart(), once.cart.cart());
    }
}
