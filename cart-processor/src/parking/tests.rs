//! Random logs, failures, tries, discards, commits and crashes: each cart's events come out as in a run without any of it, in which
//! what was discarded is a dead letter from the beginning.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use cart::contract::Contract as _;
use cart::{Aggregate, CartCommand, CartEvent, CartId, Command, LogEpoch, ParkedCart, ParkingState, Position};
use chrono::DateTime;
use journal::{Codecs, Row};
use kafka::{Codec, KafkaArgs, Record, Registry};
use parking::ParkedPartition;
use proptest::prelude::*;
use trace::Trace;
use uuid::Uuid;

use super::*;
use crate::batch::{CartBatch, by_cart, decide_batch};
use crate::intake::ConsumedCommand;
use crate::redelivery::RedeliveredRows;

mod lots;

const PARTITION: i32 = 3;
const CARTS: u8 = 3;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// The loop takes so many commands.
    Batch(usize),
    /// As `Batch`, and the process dies after the append to the journal.
    BatchAndDie(usize),
    /// The transaction is committed.
    Commit,
    /// The process dies; what is committed and journalled stays.
    Die,
    /// A try begins to read.
    BeginTry,
    /// It has read, at most so many commands, which are decided.
    EndTry(usize),
    /// As `EndTry`, and the process dies after the append to the journal.
    EndTryAndDie(usize),
    /// A cart fails from now on, or does not any more.
    Toggle(u8),
    /// An operator asks for another try.
    Request(u8),
    /// An operator gives up the command at which a parked cart stands.
    Discard(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_usize).prop_map(Step::Batch),
        1 => (1..6_usize).prop_map(Step::BatchAndDie),
        4 => Just(Step::Commit),
        1 => Just(Step::Die),
        3 => Just(Step::BeginTry),
        3 => (1..4_usize).prop_map(Step::EndTry),
        1 => (1..4_usize).prop_map(Step::EndTryAndDie),
        2 => (0..CARTS).prop_map(Step::Toggle),
        2 => (0..CARTS).prop_map(Step::Request),
        2 => (0..CARTS).prop_map(Step::Discard),
    ]
}

fn cart_id(number: u8) -> CartId {
    Uuid::from_u128(u128::from(number) + 1).into()
}

/// Adds, removals and checkouts, so that the order shows in the outcomes.
fn command(offset: i64, cart: u8, kind: u8) -> ConsumedCommand {
    let product_id = Uuid::from_u128(u128::from(kind % 3)).into();
    let command = match kind {
        0..=5 => Command::AddItem {
            product_id,
            vendor_id: Uuid::nil().into(),
            name: String::from("mug").try_into().unwrap(),
            price: "2.5".parse().unwrap(),
            quantity: 1,
        },
        6..=7 => Command::RemoveItem { product_id },
        _ => Command::Checkout {},
    };
    ConsumedCommand {
        partition: PARTITION,
        position: Position::new(LogEpoch::FIRST, offset),
        command: CartCommand {
            command_id: Uuid::from_u128(offset.unsigned_abs().into()).into(),
            cart_id: cart_id(cart),
            issued_at: DateTime::UNIX_EPOCH,
            command,
            expected_version: None,
            keyed: Some(true),
        },
        reply_to: Some(7),
        is_old: false,
        trace: Trace::None,
        letter: None,
    }
}

fn codecs() -> Codecs {
    let registry = Registry::new(&KafkaArgs::plain("", "http://127.0.0.1:1")).unwrap();
    Codecs {
        events: Codec::registered(&registry, CartEvent::TOPIC, CartEvent::SCHEMA, 1).unwrap(),
        snapshots: Codec::registered(&registry, Aggregate::TOPIC, Aggregate::SCHEMA, 2).unwrap(),
    }
}

/// The events of each cart, as published.
type Published = BTreeMap<CartId, Vec<Vec<u8>>>;

/// What survives a process.
struct Stored {
    log: Vec<(u8, u8)>,
    journal: HashMap<CartId, (Vec<Row>, Aggregate)>,
    committed: i64,
    markers: HashMap<CartId, ParkedCart>,
    published: Published,
    /// The offsets of the discarded commands, and of the dead letters.
    discarded: BTreeSet<i64>,
    letters: Vec<i64>,
}

/// A dead letter; its key is the offset of its command.
fn letter(offset: i64) -> Record {
    Record { partition: None, key: Some(offset.to_be_bytes().to_vec()), value: None, headers: None }
}

fn offset_of(letter: &Record) -> i64 {
    i64::from_be_bytes(letter.key.clone().unwrap().try_into().unwrap())
}

impl Stored {
    fn commands(&self, from: i64, until: i64) -> Vec<ConsumedCommand> {
        let offsets = from..until.min(i64::try_from(self.log.len()).unwrap());
        let of = |offset: i64| {
            let (cart, kind) = self.log[usize::try_from(offset).unwrap()];
            let letter = self.discarded.contains(&offset).then(|| letter(offset));
            ConsumedCommand { letter, ..command(offset, cart, kind) }
        };
        offsets.map(of).collect()
    }

    fn load(&self, cart_id: CartId) -> (Vec<Row>, Aggregate) {
        self.journal.get(&cart_id).cloned().unwrap_or_else(|| (Vec::new(), Aggregate::new(cart_id)))
    }

    fn append(&mut self, batch: &CartBatch, cart: &Aggregate) {
        let (mut rows, _) = self.load(batch.cart_id);
        rows.extend_from_slice(batch.rows_to_append().rows);
        self.journal.insert(batch.cart_id, (rows, cart.clone()));
    }
}

/// One process.
struct Process {
    lots: Lots,
    next: i64,
    events: Vec<(CartId, Vec<u8>)>,
    letters: Vec<i64>,
    changes: Vec<(CartId, Change)>,
    reading: Option<Job>,
}

impl Process {
    fn start(stored: &Stored, now: Instant) -> Self {
        let mut lots = Lots::new(LogEpoch::FIRST);
        let parked = ParkedPartition { carts: stored.markers.clone(), ..ParkedPartition::default() };
        lots.restore(PARTITION, &parked, stored.committed, now);
        let (next, events, letters) = (stored.committed, Vec::new(), Vec::new());
        Self { lots, next, events, letters, changes: Vec::new(), reading: None }
    }

    fn enqueue(&mut self, batch: &CartBatch) {
        let events = batch.rows.iter().flat_map(|row| row.events().iter().cloned());
        self.events.extend(events.map(|event| (batch.cart_id, event)));
        self.letters.extend(batch.letters.iter().map(offset_of));
    }

    /// False: the process died.
    fn batch(&mut self, stored: &mut Stored, world: &World, len: usize, dies: bool) -> bool {
        let until = self.next + i64::try_from(len).unwrap();
        let commands = stored.commands(self.next, until);
        let Some(last) = commands.last() else { return true };
        let until = last.position.offset() + 1;
        let (live, _) = self.lots.pass(by_cart(commands)).unwrap();
        let mut decided = Vec::new();
        for (cart_id, commands) in live {
            if world.broken.contains(&cart_id) {
                let failed = PassedCart::of(cart_id, &commands);
                let cause = Cause::Unreadable(String::from("broken"));
                let change = self.lots.begin(&failed, &cause, world.now, DateTime::UNIX_EPOCH).unwrap();
                self.changes.push((cart_id, change));
                continue;
            }
            let (rows, mut cart) = stored.load(cart_id);
            let batch = decide_batch(&mut cart, commands, &RedeliveredRows::new(rows), &world.codecs).unwrap();
            stored.append(&batch, &cart);
            decided.push(batch);
        }
        if dies {
            return false;
        }
        self.lots.succeeded(1, 1);
        decided.iter().for_each(|batch| self.enqueue(batch));
        self.next = until;
        self.lots.advance(PARTITION, until);
        true
    }

    fn commit(&mut self, stored: &mut Stored) {
        for (cart_id, event) in self.events.drain(..) {
            stored.published.entry(cart_id).or_default().push(event);
        }
        for (cart_id, change) in self.changes.drain(..) {
            match change {
                Change::Marker(cart) => drop(stored.markers.insert(cart_id, cart)),
                Change::End => drop(stored.markers.remove(&cart_id)),
                Change::EndOfRequest => {}
            }
        }
        stored.letters.append(&mut self.letters);
        stored.committed = self.next;
    }

    /// As `cartctl parked discard`: not a command that was decided, nor while its cart is tried.
    fn discard(&self, stored: &mut Stored, cart_id: CartId) {
        let is_tried = self.reading.as_ref().is_some_and(|job| job.cart_id == cart_id);
        let marker = stored.markers.get(&cart_id).filter(|cart| cart.state == ParkingState::Parked && !is_tried);
        let Some(from) = marker.map(|cart| cart.next_position.offset()) else { return };
        let waiting = stored.commands(from, i64::MAX);
        let Some(first) = waiting.iter().find(|one| one.command.cart_id == cart_id) else { return };
        if stored.load(cart_id).0.iter().all(|row| row.position != first.position) {
            stored.discarded.insert(first.position.offset());
        }
    }

    /// False: the process died.
    fn end_try(&mut self, stored: &mut Stored, world: &World, len: usize, dies: bool) -> bool {
        let Some(job) = self.reading.take() else { return true };
        if world.broken.contains(&job.cart_id) {
            let cause = Cause::Unreadable(String::from("broken"));
            let failed = Failed::Cart { cause, store_answers: true, next_offset: None };
            let changes = self.lots.failed(&job, failed, world.now);
            self.changes.extend(changes.into_iter().map(|change| (job.cart_id, change)));
            return true;
        }
        let mut commands = stored.commands(job.from, job.until);
        commands.retain(|one| one.command.cart_id == job.cart_id);
        let read_to = if commands.len() >= len {
            commands.truncate(len);
            commands.last().unwrap().position.offset() + 1
        } else {
            job.until
        };
        let (arrived, is_all) = self.lots.arrived(&job, read_to).unwrap();
        let (mut rows, mut cart) = stored.load(job.cart_id);
        let from = retry::rows_from(&job, LogEpoch::FIRST, &cart);
        rows.retain(|row| from.is_some_and(|from| from <= row.position));
        let commands = commands.into_iter().chain(arrived);
        let InTurn { decided, panicked } =
            in_turn(&mut cart, &RedeliveredRows::new(rows), commands, &world.codecs).unwrap();
        assert_eq!(panicked, None);
        if let Some(batch) = &decided {
            stored.append(batch, &cart);
        }
        if dies {
            return false;
        }
        decided.iter().for_each(|batch| self.enqueue(batch));
        let changes = self.lots.decided(&job, Decided { next_offset: read_to, is_all }, world.now);
        self.changes.extend(changes.into_iter().map(|change| (job.cart_id, change)));
        true
    }
}

struct World {
    now: Instant,
    broken: HashSet<CartId>,
    codecs: Codecs,
    /// Operators' requests so far.
    requests: i64,
}

fn run(log: Vec<(u8, u8)>, steps: &[Step], discarded: BTreeSet<i64>, codecs: Codecs) -> Stored {
    let end = i64::try_from(log.len()).unwrap();
    let (journal, markers, published) = (HashMap::new(), HashMap::new(), Published::new());
    let mut stored = Stored { log, journal, committed: 0, markers, published, discarded, letters: Vec::new() };
    let mut world = World { now: Instant::now(), broken: HashSet::new(), codecs, requests: 0 };
    let mut process = Process::start(&stored, world.now);
    for step in steps {
        world.now += Duration::from_secs(6);
        let lives = match step {
            Step::Batch(len) => process.batch(&mut stored, &world, *len, false),
            Step::BatchAndDie(len) => process.batch(&mut stored, &world, *len, true),
            Step::Commit => {
                process.commit(&mut stored);
                true
            }
            Step::Die => false,
            Step::BeginTry => {
                let job = process.lots.next_job(|_| false, world.now);
                process.reading = job.or(process.reading);
                true
            }
            Step::EndTry(len) => process.end_try(&mut stored, &world, *len, false),
            Step::EndTryAndDie(len) => process.end_try(&mut stored, &world, *len, true),
            Step::Toggle(cart) => {
                if !world.broken.insert(cart_id(*cart)) {
                    world.broken.remove(&cart_id(*cart));
                }
                true
            }
            Step::Request(cart) => {
                world.requests += 1;
                process.lots.request(PARTITION, cart_id(*cart), world.requests, world.now);
                true
            }
            Step::Discard(cart) => {
                process.discard(&mut stored, cart_id(*cart));
                true
            }
        };
        if !lives {
            process = Process::start(&stored, world.now);
        }
    }
    // All is repaired, and everything is tried again.
    world.broken.clear();
    for _ in 0..1_000 {
        world.now += Duration::from_secs(6);
        process.batch(&mut stored, &world, 4, false);
        world.requests += 1;
        (0..CARTS).for_each(|cart| process.lots.request(PARTITION, cart_id(cart), world.requests, world.now));
        process.reading = process.lots.next_job(|_| false, world.now).or(process.reading);
        process.end_try(&mut stored, &world, 2, false);
        process.commit(&mut stored);
        if process.next == end && process.lots.is_empty() {
            break;
        }
    }
    stored
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn parked_carts_end_as_in_a_run_without_failures(
        log in prop::collection::vec((0..CARTS, 0..10_u8), 1..40),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let codecs = codecs();
        let mut found = run(log.clone(), &steps, BTreeSet::new(), codecs.clone());
        let expected = run(log, &[], found.discarded.clone(), codecs);
        found.letters.sort_unstable();
        prop_assert_eq!(found.letters, found.discarded.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(found.markers, HashMap::new());
        prop_assert_eq!(found.committed, expected.committed);
        prop_assert_eq!(found.published, expected.published);
    }
}

/// The try reads no command from the log, and the row of the one that arrives is of the try before.
#[test]
fn what_a_failed_try_has_journalled_is_published_by_the_next() {
    let log = vec![(0, 0), (0, 1), (1, 0), (0, 2)];
    let is_set_aside_and_repaired = [Step::Toggle(0), Step::Batch(3), Step::Commit, Step::Toggle(0), Step::Die];
    let reads_a_chunk = [Step::BeginTry, Step::EndTry(2), Step::Commit];
    let reads_the_rest = [Step::BeginTry, Step::Batch(1), Step::EndTryAndDie(2), Step::BeginTry, Step::Batch(1)];
    let steps = [&is_set_aside_and_repaired[..], &reads_a_chunk, &reads_the_rest, &[Step::EndTry(2)]].concat();
    let expected = run(log.clone(), &[], BTreeSet::new(), codecs());
    let found = run(log, &steps, BTreeSet::new(), codecs());
    assert_eq!(found.published, expected.published);
    assert_eq!(found.published[&cart_id(0)].len(), 3, "three products");
}

/// A process dies when what comes behind the discarded command is journalled, and nothing of it is published.
#[test]
fn a_discarded_command_is_one_dead_letter_and_what_comes_behind_it_is_decided() {
    let log = vec![(0, 0), (0, 1), (1, 0), (0, 2)];
    let is_set_aside = [Step::Toggle(0), Step::Batch(3), Step::Commit];
    let is_parked = [Step::BeginTry, Step::EndTry(5), Step::BeginTry, Step::EndTry(5), Step::Commit];
    let is_discarded = [Step::Discard(0), Step::Toggle(0), Step::Request(0), Step::BeginTry, Step::EndTryAndDie(5)];
    let is_tried_again = [Step::Discard(0), Step::Request(0), Step::BeginTry, Step::EndTry(5), Step::Commit];
    let steps = [&is_set_aside[..], &is_parked, &is_discarded, &is_tried_again].concat();
    let found = run(log.clone(), &steps, BTreeSet::new(), codecs());
    assert_eq!(found.letters, [0]);
    assert_eq!(found.discarded, BTreeSet::from([0]));
    assert_eq!(found.published, run(log, &[], found.discarded, codecs()).published);
    assert_eq!(found.published[&cart_id(0)].len(), 2, "two products of three");
}
