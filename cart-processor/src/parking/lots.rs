//! The parked carts of a worker's partitions: which commands wait, which cart is tried next, and when a cart is live again. No I/O.

use std::collections::HashMap;
use std::time::Instant;

use cart::{CartId, LogEpoch, ParkedCart, ParkingState, Position};
use chrono::{DateTime, Utc};
use parking::ParkedPartition;

use super::passed::{PassedCart, end_spans};
use super::trial::{Cause, Trial};
use crate::intake::{ConsumedCommand, TooNewCommand};

/// Parked carts of a partition, with those that are tried. One more stops the partition: so many are no matter of carts.
pub(crate) const PARKED_MAX: usize = 1_000;

/// Commands of the cart that is tried which are kept while its log is read, so that a cart with steady traffic is caught up with.
/// More are read from the log.
const ARRIVED_MAX: usize = 1_000;

/// A partition has too many parked carts.
#[derive(Debug, thiserror::Error)]
#[error(
    "partition {partition} is stopped: {PARKED_MAX} carts are parked, and one more fails ({reason}). Correct the cause \
     (`cartctl parked`), run `cartctl parked retry --all`, then restart this process"
)]
pub(crate) struct TooManyParked {
    pub(crate) partition: i32,
    /// The offset of the last one's first command.
    pub(crate) offset: i64,
    /// Why the last one cannot be decided.
    pub(crate) reason: String,
}

/// The markers of a partition were not read yet.
#[derive(Debug, thiserror::Error)]
#[error("the parked carts of partition {partition} are not known")]
pub(crate) struct NotRestored {
    pub(crate) partition: i32,
}

/// What is to be published of a cart, in the transaction with the partition's offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Marker(ParkedCart),
    /// The cart is live.
    End,
    /// An operator's request is done with.
    EndOfRequest,
}

/// The commands of a parked cart that are to be read from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) partition: i32,
    pub(crate) cart_id: CartId,
    pub(crate) from: i64,
    /// The offset behind the last one that the loop has passed over.
    pub(crate) until: i64,
}

/// How far a try has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decided {
    /// The cart's commands before this offset are decided.
    pub(crate) next_offset: i64,
    /// The loop has passed over no command behind them.
    pub(crate) is_all: bool,
}

/// Why a try did not come to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// A server does not respond.
    Away,
    /// The cart fails; the store answers for others.
    Cart { cause: Cause, store_answers: bool, next_offset: Option<i64> },
}

/// The parked carts of a worker.
#[derive(Debug)]
pub(crate) struct Lots {
    epoch: LogEpoch,
    partitions: HashMap<i32, Lot>,
    /// The cart that is tried.
    in_progress: Option<(i32, CartId)>,
    successes: Successes,
}

/// Carts, beside those that are tried, that were read from the journal and that were decided since the start.
#[derive(Debug, Clone, Copy, Default)]
struct Successes {
    read: u64,
    decided: u64,
}

/// Those of one partition.
#[derive(Debug, Default)]
struct Lot {
    carts: HashMap<CartId, Waiting>,
    /// The loop has decided or passed over everything before it.
    next_offset: i64,
    /// The end of `cart-parked` up to which it is known.
    parked_end: i64,
}

#[derive(Debug)]
struct Waiting {
    cart: ParkedCart,
    trial: Trial,
    /// The newest command that the loop has passed over.
    newest_passed: i64,
    /// What the loop has passed over since the try in progress began.
    arrived: Vec<ConsumedCommand>,
    /// Something has arrived that is not kept: it is too new, or there is more than that.
    is_cut: bool,
    /// Those at its last failure.
    successes: Successes,
    /// The offset of the newest request of an operator on the topic, or a later one.
    requested: Option<i64>,
    /// `requested` when the newest try began: a try says nothing of what was repaired after that.
    tried_for: Option<i64>,
}

impl Lots {
    pub(crate) fn new(epoch: LogEpoch) -> Self {
        Self { epoch, partitions: HashMap::new(), in_progress: None, successes: Successes::default() }
    }

    /// A partition is assigned, or read again. `next_offset` was read before `parked`.
    pub(crate) fn restore(&mut self, partition: i32, parked: &ParkedPartition, next_offset: i64, now: Instant) {
        let waiting = |(cart_id, cart): (&CartId, &ParkedCart)| {
            let requested = parked.requested.contains(cart_id).then_some(parked.end - 1);
            let mut cart = cart.clone();
            if requested.is_some() && cart.state == ParkingState::Parked {
                cart.state = ParkingState::Retrying;
            }
            let waiting = Waiting {
                cart,
                trial: Trial::begin(now),
                // Which of them are the cart's is not known here.
                newest_passed: next_offset - 1,
                arrived: Vec::new(),
                is_cut: false,
                successes: self.successes,
                requested,
                tried_for: None,
            };
            (*cart_id, waiting)
        };
        let carts = parked.carts.iter().map(waiting).collect();
        self.partitions.insert(partition, Lot { carts, next_offset, parked_end: parked.end });
    }

    pub(crate) fn revoke(&mut self, partition: i32) {
        self.partitions.remove(&partition);
        self.in_progress = self.in_progress.filter(|(of, _)| *of != partition);
    }

    pub(crate) fn clear(&mut self) {
        self.partitions.clear();
        self.in_progress = None;
    }

    /// Carts in each partition, parked or tried.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (i32, usize)> + '_ {
        self.partitions.iter().map(|(partition, lot)| (*partition, lot.carts.len()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.partitions.values().all(|lot| lot.carts.is_empty())
    }

    /// The partitions with such carts, each with the end of `cart-parked` up to which it is known.
    pub(crate) fn followed(&self) -> impl Iterator<Item = (i32, i64)> + '_ {
        self.partitions.iter().filter(|(_, lot)| !lot.carts.is_empty()).map(|(number, lot)| (*number, lot.parked_end))
    }

    pub(crate) fn followed_to(&mut self, partition: i32, end: i64) {
        if let Some(lot) = self.partitions.get_mut(&partition) {
            lot.parked_end = lot.parked_end.max(end);
        }
    }

    /// The loop has decided or passed over everything before `next_offset`.
    pub(crate) fn advance(&mut self, partition: i32, next_offset: i64) {
        if let Some(lot) = self.partitions.get_mut(&partition) {
            lot.next_offset = next_offset;
        }
    }

    pub(crate) fn next_offset(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition).map(|lot| lot.next_offset)
    }

    /// Others were read from the journal, and decided.
    pub(crate) fn succeeded(&mut self, read: usize, decided: usize) {
        self.successes.read += read as u64;
        self.successes.decided += decided as u64;
    }

    /// Takes out the commands of parked carts; each is passed over, wherever it is.
    #[expect(clippy::type_complexity, reason = "the carts of a batch, in two parts")]
    pub(crate) fn pass(
        &mut self,
        carts: Vec<(CartId, Vec<ConsumedCommand>)>,
    ) -> Result<(Vec<(CartId, Vec<ConsumedCommand>)>, Vec<(PassedCart, String)>), NotRestored> {
        let mut passed = Vec::new();
        let mut live = Vec::with_capacity(carts.len());
        for (cart_id, commands) in carts {
            let partition = commands.first().map_or(0, |one| one.partition);
            let lot = self.partitions.get_mut(&partition).ok_or(NotRestored { partition })?;
            let Some(waiting) = lot.carts.get_mut(&cart_id) else {
                live.push((cart_id, commands));
                continue;
            };
            let cart = PassedCart::of(cart_id, &commands);
            waiting.newest_passed = waiting.newest_passed.max(cart.last.offset());
            end_spans(&commands);
            passed.push((cart, waiting.cart.reason_code().to_owned()));
            if self.in_progress == Some((partition, cart_id)) {
                waiting.is_cut |= waiting.arrived.len() + commands.len() > ARRIVED_MAX;
                if !waiting.is_cut {
                    waiting.arrived.extend(commands);
                }
            }
        }
        Ok((live, passed))
    }

    /// Passes over a command that is too new, if its cart is parked; otherwise false. A try in progress has to read it from the log.
    pub(crate) fn pass_too_new(&mut self, command: &TooNewCommand) -> Result<bool, NotRestored> {
        let TooNewCommand { partition, position, cart_id, .. } = *command;
        let lot = self.partitions.get_mut(&partition).ok_or(NotRestored { partition })?;
        let Some(waiting) = lot.carts.get_mut(&cart_id) else { return Ok(false) };
        waiting.newest_passed = waiting.newest_passed.max(position.offset());
        waiting.is_cut |= self.in_progress == Some((partition, cart_id));
        Ok(true)
    }

    /// A cart has failed alone, at these commands. The marker is to be published with the offset behind them.
    pub(crate) fn begin(
        &mut self,
        failed: &PassedCart,
        cause: &Cause,
        now: Instant,
        since: DateTime<Utc>,
    ) -> Result<Change, TooManyParked> {
        let partition = failed.partition;
        let lot = self.partitions.entry(partition).or_default();
        if lot.carts.len() >= PARKED_MAX {
            let offset = failed.first.offset();
            return Err(TooManyParked { partition, offset, reason: cause.reason() });
        }
        let cart = ParkedCart {
            first_position: failed.first,
            next_position: failed.first,
            state: ParkingState::Trying,
            reason: cause.reason(),
            since,
        };
        let waiting = Waiting {
            cart: cart.clone(),
            trial: Trial::failed_first(cause, now),
            newest_passed: failed.last.offset(),
            arrived: Vec::new(),
            is_cut: false,
            successes: self.successes,
            requested: None,
            tried_for: None,
        };
        lot.carts.insert(failed.cart_id, waiting);
        Ok(Change::Marker(cart))
    }

    /// An operator asks for another try, with the record at this offset of `cart-parked`.
    pub(crate) fn request(&mut self, partition: i32, cart_id: CartId, offset: i64, now: Instant) {
        let lot = self.partitions.get_mut(&partition);
        if let Some(waiting) = lot.and_then(|lot| lot.carts.get_mut(&cart_id)) {
            waiting.requested = waiting.requested.max(Some(offset));
            if waiting.cart.state == ParkingState::Parked {
                waiting.cart.state = ParkingState::Retrying;
                waiting.trial = Trial::begin(now);
            }
        }
    }

    /// The try in progress was dropped.
    pub(crate) fn abandon(&mut self) {
        self.in_progress = None;
    }

    /// The cart to try now, if one is due and none is in progress. Nothing is tried in partitions that are held.
    pub(crate) fn next_job(&mut self, is_held: impl Fn(i32) -> bool, now: Instant) -> Option<Job> {
        if self.in_progress.is_some() {
            return None;
        }
        let running = self.partitions.iter().filter(|(partition, _)| !is_held(**partition));
        let carts = running.flat_map(|(partition, lot)| lot.carts.iter().map(move |(id, one)| (*partition, *id, one)));
        let due = carts.filter(|(_, _, one)| one.cart.state != ParkingState::Parked && one.trial.next_at() <= now);
        let (partition, cart_id, _) = due.min_by_key(|(_, _, one)| one.trial.next_at())?;
        let lot = self.partitions.get_mut(&partition)?;
        let waiting = lot.carts.get_mut(&cart_id)?;
        (waiting.arrived, waiting.is_cut) = (Vec::new(), false);
        waiting.tried_for = waiting.requested;
        self.in_progress = Some((partition, cart_id));
        Some(Job { partition, cart_id, from: waiting.cart.next_position.offset(), until: lot.next_offset })
    }

    /// What has arrived of the cart since its try began, if the log was read up to there; and whether that is all. `None` if
    /// the cart is not this worker's any more.
    pub(crate) fn arrived(&mut self, job: &Job, read_to: i64) -> Option<(Vec<ConsumedCommand>, bool)> {
        let waiting = self.partitions.get_mut(&job.partition)?.carts.get_mut(&job.cart_id)?;
        let arrived = std::mem::take(&mut waiting.arrived);
        if read_to >= job.until && !waiting.is_cut {
            return Some((arrived, true));
        }
        Some((Vec::new(), waiting.newest_passed < read_to))
    }

    /// The try in progress has ended well; `Change::End` if the cart is live.
    pub(crate) fn decided(&mut self, job: &Job, decided: Decided, now: Instant) -> Vec<Change> {
        self.in_progress = None;
        let epoch = self.epoch;
        let Some(lot) = self.partitions.get_mut(&job.partition) else { return Vec::new() };
        let Some(waiting) = lot.carts.get_mut(&job.cart_id) else { return Vec::new() };
        if decided.is_all {
            let is_requested = waiting.requested.is_some();
            lot.carts.remove(&job.cart_id);
            return std::iter::once(Change::End).chain(is_requested.then_some(Change::EndOfRequest)).collect();
        }
        waiting.cart.next_position = Position::new(epoch, decided.next_offset);
        waiting.trial.go_on(now);
        vec![Change::Marker(waiting.cart.clone())]
    }

    /// The try in progress has failed.
    pub(crate) fn failed(&mut self, job: &Job, failed: Failed, now: Instant) -> Vec<Change> {
        self.in_progress = None;
        let tried = |one: &Waiting| one.cart.state == ParkingState::Trying;
        let tried = self.partitions.values().flat_map(|lot| lot.carts.values()).filter(|one| tried(one)).count();
        let (epoch, successes) = (self.epoch, self.successes);
        let lot = self.partitions.get_mut(&job.partition);
        let Some(waiting) = lot.and_then(|lot| lot.carts.get_mut(&job.cart_id)) else { return Vec::new() };
        let Failed::Cart { cause, store_answers, next_offset } = failed else {
            waiting.trial.wait(now);
            return Vec::new();
        };
        let before = waiting.successes;
        let others = match cause {
            Cause::Unreadable(_) => successes.read > before.read,
            Cause::Panicked(_) => successes.decided > before.decided,
            // What cannot be decoded depends on no server and on no other cart.
            Cause::TooNew(_) => true,
        };
        let have_others_succeeded = others || (tried <= 1 && store_answers);
        waiting.successes = successes;
        let before = waiting.cart.clone();
        if let Some(next_offset) = next_offset {
            waiting.cart.next_position = Position::new(epoch, next_offset).max(before.next_position);
        }
        let is_parked = match waiting.cart.state {
            // An operator has asked: no need for more.
            ParkingState::Retrying if have_others_succeeded => true,
            ParkingState::Retrying => {
                waiting.trial.wait(now);
                false
            }
            ParkingState::Trying | ParkingState::Parked => waiting.trial.failed(&cause, have_others_succeeded, now),
        };
        let is_requested_again = waiting.requested != waiting.tried_for;
        let mut changes = Vec::new();
        if is_parked && is_requested_again {
            waiting.cart.state = ParkingState::Retrying;
            waiting.trial = Trial::begin(now);
        } else if is_parked {
            waiting.cart.state = ParkingState::Parked;
            waiting.cart.reason = cause.reason();
            if waiting.requested.take().is_some() {
                changes.push(Change::EndOfRequest);
            }
        }
        if waiting.cart != before {
            changes.insert(0, Change::Marker(waiting.cart.clone()));
        }
        changes
    }
}
