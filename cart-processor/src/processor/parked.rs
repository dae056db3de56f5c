//! What the loop does about parked carts: sets carts aside that fail alone, passes over their commands, and decides them later.
//! [`crate::parking`] has the rules.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use cart::{CartId, Outcome, ParkingState};
use chrono::{DateTime, Utc};
use kafka::Recovery;
use parking::is_undecodable;

use super::changes::Changes;
use super::{Error, Worker};
use crate::batch::{self, CartBatch};
use crate::intake::{ConsumedCommand, TooNewCommand};
use crate::metrics::PARKED_CARTS;
use crate::parking::retry::{FromLog, Loaded, Reading, answers};
use crate::parking::{
    BadMarkers, Cause, Change, Decided, Failed, InTurn, Job, NotRestored, PassedCart, Request, Unread, end_spans,
    fail_alone, guarded, in_turn, is_alone,
};
use crate::redelivery::RedeliveredRows;
use crate::reply::{PendingReply, ReplySource};

/// A cart's commands in a batch.
type Carts = Vec<(CartId, Vec<ConsumedCommand>)>;

impl Worker {
    /// Reads the markers of partitions, behind their committed offsets. Without them no command of a partition is processed.
    pub(super) fn restore_parked(&mut self, partitions: &[i32]) -> Result<(), Error> {
        if partitions.is_empty() {
            return Ok(());
        }
        if fail_points::fails("restore-parked-fails") {
            return Err(kafka::Error::retry("restoring the parked carts", "a test lets it fail").into());
        }
        // In this order: see `parking`.
        for (partition, next_offset) in self.consumer.committed(partitions)? {
            let next_offset = next_offset.ok_or(NotRestored { partition })?;
            match self.parked.read(partition, next_offset)? {
                Ok(parked) => self.state.lots.restore(partition, &parked, next_offset, Instant::now()),
                Err(bad) => self.stop_unrestored(bad)?,
            }
        }
        self.count_parked();
        Ok(())
    }

    /// Nothing of a partition is decided while its parked carts are not known. The others go on.
    fn stop_unrestored(&mut self, bad: BadMarkers) -> Result<(), Error> {
        let (partition, error) = (bad.partition, Error::from(bad));
        if let Some(stop) = error.stops() {
            self.stop(stop, error);
        }
        Ok(self.consumer.stop(partition)?)
    }

    pub(super) fn forget_parked(&mut self, partition: i32) {
        self.state.lots.revoke(partition);
        self.state.trying.take_if(|reading| reading.job.partition == partition);
        PARKED_CARTS.with(&[&partition.to_string()]).set(0.0);
    }

    /// Drops a try of a partition that is to be paused; it begins again afterwards.
    pub(super) fn abandon_try(&mut self, paused: &[i32]) {
        if self.state.trying.take_if(|reading| paused.contains(&reading.job.partition)).is_some() {
            self.state.lots.abandon();
        }
    }

    fn count_parked(&self) {
        for (partition, count) in self.state.lots.counts() {
            let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            PARKED_CARTS.with(&[&partition.to_string()]).set(count);
        }
    }

    /// Passes over the commands of parked carts, and answers their clients at once: that their commands wait is true whatever
    /// becomes of this batch.
    pub(super) fn pass_parked(&mut self, carts: Carts) -> Result<Carts, Error> {
        if self.state.lots.is_empty() && carts.iter().all(|(_, commands)| self.is_restored(commands)) {
            return Ok(carts);
        }
        let (live, passed) = self.state.lots.pass(carts)?;
        for (cart, reason) in passed {
            self.answer_parked(cart, &reason)?;
        }
        Ok(live)
    }

    /// Sets aside the carts with commands that are too new. What a batch has of such a cart before the first of them waits for the
    /// cart's first try.
    pub(super) fn set_too_new_aside(
        &mut self,
        carts: Carts,
        too_new: Vec<TooNewCommand>,
        changes: &mut Changes,
    ) -> Result<Carts, Error> {
        if too_new.is_empty() {
            return Ok(carts);
        }
        let mut failed: HashMap<CartId, (PassedCart, Cause)> = HashMap::new();
        for one in too_new {
            if self.state.lots.pass_too_new(&one)? {
                continue;
            }
            let (cart, _) = failed
                .entry(one.cart_id)
                .or_insert_with(|| (PassedCart::of_too_new(&one), Cause::TooNew(one.reason.clone())));
            cart.add_too_new(&one);
        }
        let mut live = Vec::with_capacity(carts.len());
        for (cart_id, commands) in carts {
            match failed.get_mut(&cart_id) {
                None => live.push((cart_id, commands)),
                Some((cart, _)) => {
                    end_spans(&commands);
                    cart.add(&commands);
                }
            }
        }
        for (cart, cause) in failed.into_values() {
            self.set_aside(cart.partition, cart, &cause, changes)?;
        }
        Ok(live)
    }

    fn is_restored(&self, commands: &[ConsumedCommand]) -> bool {
        commands.first().is_some_and(|one| self.state.lots.next_offset(one.partition).is_some())
    }

    fn answer_parked(&self, cart: PassedCart, reason: &str) -> Result<(), Error> {
        let reply = |(command_id, position, reply_to)| {
            let source = ReplySource::Known(Some(Outcome::Parked { reason: reason.to_owned() }));
            PendingReply { command_id, position, reply_to, source, span: None }
        };
        let replies = cart.replies.into_iter().map(reply).collect();
        Ok(self.runtime.block_on(self.replies.send(cart.cart_id, replies))?)
    }

    /// Sets aside the carts that could not be read, or for which the rules panicked meanwhile, if others could be read; otherwise
    /// all wait, as for a server that does not respond.
    pub(super) fn set_unreadable_aside(
        &mut self,
        carts: Carts,
        succeeded: usize,
        failed: Vec<(CartId, Unread)>,
        changes: &mut Changes,
    ) -> Result<Carts, Error> {
        if failed.is_empty() {
            return Ok(carts);
        }
        let store_answers = succeeded == 0 && self.runtime.block_on(answers(&self.journal));
        let count = failed.len();
        let mut causes = fail_alone(failed, succeeded, store_answers).map_err(|unread| Error::unread(count, unread))?;
        let mut live = Vec::with_capacity(carts.len());
        for (cart_id, commands) in carts {
            match causes.remove(&cart_id) {
                None => live.push((cart_id, commands)),
                Some(cause) => {
                    end_spans(&commands);
                    self.set_aside(commands[0].partition, PassedCart::of(cart_id, &commands), &cause, changes)?;
                }
            }
        }
        Ok(live)
    }

    /// Sets aside the carts for which the rules have panicked, if they have decided others.
    pub(super) fn set_panicked_aside(
        &mut self,
        panicked: Vec<(i32, PassedCart, String)>,
        decided: usize,
        changes: &mut Changes,
    ) -> Result<(), Error> {
        if let Some((_, _, message)) = panicked.first()
            && !is_alone(panicked.len(), decided, true)
        {
            return Err(Error::RulesPanic { carts: panicked.len(), message: message.clone() });
        }
        for (partition, cart, message) in panicked {
            self.set_aside(partition, cart, &Cause::Panicked(message), changes)?;
        }
        Ok(())
    }

    fn set_aside(
        &mut self,
        partition: i32,
        cart: PassedCart,
        cause: &Cause,
        changes: &mut Changes,
    ) -> Result<(), Error> {
        let reason = cause.reason();
        let since = DateTime::<Utc>::from(fail_points::now());
        let change = self.state.lots.begin(&cart, cause, Instant::now(), since)?;
        tracing::warn!(
            worker = self.name,
            partition,
            reason,
            "a cart is set aside, and tried again; its commands wait"
        );
        tracing::debug!(cart_id = %cart.cart_id, "the cart that is set aside");
        changes.0.push((partition, cart.cart_id, change));
        if let Some(carts) = self.state.partitions.get_mut(&partition) {
            drop(carts.take(cart.cart_id));
        }
        let code = reason.split_once(':').map_or(reason.as_str(), |(code, _)| code).to_owned();
        self.answer_parked(cart, &code)
    }

    /// Puts changes into the outbox, with the offsets that their partitions have reached. After `Lots::advance` of a batch.
    pub(super) fn enqueue_changes(&mut self, changes: Changes) -> Result<(), Error> {
        if changes.0.is_empty() {
            return Ok(());
        }
        for (partition, cart_id, change) in changes.0 {
            let Some(next_offset) = self.state.lots.next_offset(partition) else { continue };
            let record = self.parked.record(partition, cart_id, &change)?;
            self.state.outbox.push_parked(partition, record);
            self.state.outbox.advance(partition, next_offset);
        }
        self.count_parked();
        Ok(())
    }

    /// Follows operators' requests, and goes on with the tries. Costs nothing while no cart is parked.
    pub(super) fn tend_parked(&mut self) -> Result<(), Error> {
        if self.state.lots.is_empty() {
            return Ok(());
        }
        self.follow_requests()?;
        if let Some(result) = self.state.trying.as_mut().and_then(Reading::finished)
            && let Some(reading) = self.state.trying.take()
        {
            let changes = match result {
                Ok(loaded) => self.decide_parked(&reading.job, loaded)?,
                Err(failed) => self.try_failed(&reading.job, failed),
            };
            self.enqueue_changes(changes)?;
        }
        if self.state.trying.is_none()
            && let Some(job) = self.state.lots.next_job(
                |partition| self.state.stopped.hold_tries(partition) || self.control.is_paused(partition),
                Instant::now(),
            )
        {
            self.state.trying = Some(self.retries.begin(job));
        }
        Ok(())
    }

    fn follow_requests(&mut self) -> Result<(), Error> {
        let followed: BTreeMap<i32, i64> = self.state.lots.followed().collect();
        let (requests, ends) = match self.parked.requests(&followed) {
            // They come later. What cannot be decoded would come again and again: going back stops its partition.
            Err(error) if error.recovery() == Recovery::Retry && !is_undecodable(&error) => return Ok(()),
            requests => requests?,
        };
        for Request { partition, cart_id, offset } in requests {
            self.state.lots.request(partition, cart_id, offset, Instant::now());
        }
        for (partition, end) in ends {
            self.state.lots.followed_to(partition, end);
        }
        Ok(())
    }

    fn try_failed(&mut self, job: &Job, failed: Failed) -> Changes {
        let changes = self.state.lots.failed(job, failed, Instant::now());
        for change in &changes {
            if let Change::Marker(cart) = change {
                let (worker, partition, reason) = (&self.name, job.partition, &cart.reason);
                if cart.state == ParkingState::Parked {
                    tracing::error!(
                        worker,
                        partition,
                        reason,
                        "a cart is parked: its commands wait (`cartctl parked`)"
                    );
                } else {
                    let state = cart.state.name();
                    tracing::warn!(worker, partition, state, reason, "a cart that was tried fails");
                }
            }
        }
        Changes(changes.into_iter().map(|change| (job.partition, job.cart_id, change)).collect())
    }

    /// Decides the commands of a parked cart that a try has read, and what has arrived meanwhile: one by one, so that what was
    /// decided before a failure stays.
    ///
    /// After a crash before the append they are decided again. After one behind it, and before the transaction, they come again
    /// from the log, with rows in the journal, and their bytes are published. After the transaction the marker shows that they are
    /// done with. Shown by crates/e2e/tests/e2e/parking.rs.
    fn decide_parked(&mut self, job: &Job, loaded: Loaded) -> Result<Changes, Error> {
        let Loaded { mut cart, rows, from_log: FromLog { commands, read_to, too_new } } = loaded;
        let Some((arrived, is_all)) = self.state.lots.arrived(job, read_to) else {
            self.state.lots.abandon();
            return Ok(Changes::default());
        };
        let codecs = self.journal.codecs();
        let decided = in_turn(&mut cart, &rows, commands.into_iter().chain(arrived), codecs);
        let InTurn { decided, panicked } = decided.map_err(|error| Error::deciding(job.partition, error))?;
        if let Some(mut decided) = decided {
            // The clients have their answers: that their commands wait.
            decided.replies.clear();
            if let Err(error) = self.runtime.block_on(self.journal.append([decided.rows_to_append()])) {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(worker = self.name, error, "the commands of a parked cart were not journalled");
                return Ok(self.try_failed(job, Failed::Away));
            }
            fail_points::crash_point("parking-after-journal");
            self.enqueue_events(decided);
        }
        let panicked = panicked.map(|(message, offset)| (Cause::Panicked(message), offset));
        // Arrived commands all have higher offsets.
        let too_new = too_new.map(|reason| (Cause::TooNew(reason), read_to));
        if let Some((cause, offset)) = panicked.or(too_new) {
            let failed = Failed::Cart { cause, store_answers: true, next_offset: Some(offset) };
            return Ok(self.try_failed(job, failed));
        }
        let changes = self.state.lots.decided(job, Decided { next_offset: read_to, is_all }, Instant::now());
        if is_all {
            tracing::info!(worker = self.name, partition = job.partition, "a cart that was set aside is live again");
            self.state.partitions.entry(job.partition).or_default().insert(cart);
        }
        Ok(Changes(changes.into_iter().map(|change| (job.partition, job.cart_id, change)).collect()))
    }

    /// As [`batch::decide_batch`] for each cart of a batch. A cart for which the rules panic is dropped from memory, and its
    /// commands come back.
    #[expect(clippy::type_complexity, reason = "what was decided, and what was not")]
    pub(super) fn decide_carts(
        &mut self,
        carts: Carts,
        mut redelivered_rows: HashMap<CartId, RedeliveredRows>,
    ) -> Result<(Vec<CartBatch>, Vec<(i32, PassedCart, String)>), Error> {
        let mut batches = Vec::with_capacity(carts.len());
        let mut panicked = Vec::new();
        for (cart_id, commands) in carts {
            let partition = commands[0].partition;
            let history = redelivered_rows.remove(&cart_id).unwrap_or_default();
            let codecs = self.journal.codecs();
            let carts = self.state.partitions.entry(partition).or_default();
            let passed = PassedCart::of(cart_id, &commands);
            let batch = guarded(|| carts.change(cart_id, |cart| batch::decide_batch(cart, commands, &history, codecs)));
            match batch {
                Err(message) => {
                    drop(carts.take(cart_id));
                    panicked.push((partition, passed, message));
                }
                // Skipping it would lose its commands, since the offsets move on.
                Ok(None) => return Err(Error::NotLoaded),
                Ok(Some(Ok(batch))) => batches.push(batch),
                Ok(Some(Err(error))) => return Err(Error::deciding(partition, error)),
            }
        }
        Ok((batches, panicked))
    }
}
