//! Which generation of each read table is read: the active one, by Cassandra's table `read_model`.
//!
//! It is asked once a second. An answer counts for [`LEASE`]: while Cassandra does not say which generation is active, these tables are
//! read for that long, then no more. `cartctl switch` keeps the old and the new generation at one cut for longer than that, so a total
//! that one instance has shown is not lower at another one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cart::Generation;
use cart::contract::{ReadModel, ReadTable};
use cassandra::Error;
use cassandra::read_models::{ASK_INTERVAL, LEASE, all_active};
use scylla::client::session::Session;
use service::Shutdown;
use tokio::time::{MissedTickBehavior, interval};

use crate::problem::Problem;

/// The tables that are read here.
const MODELS: [ReadModel; 2] = [ReadTable::BalanceByVendor.model(), ReadTable::ItemQuantityByDay.model()];

/// The active generations. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ActiveGenerations {
    session: Arc<Session>,
    active: Arc<Mutex<Active>>,
}

/// The newest answer.
#[derive(Debug)]
struct Active {
    /// In the order of [`MODELS`]. An error: its row has no generation.
    generations: Vec<Result<Generation, Error>>,
    asked_at: Instant,
}

impl Active {
    async fn ask(session: &Session) -> Result<Self, Error> {
        // A switch while it is asked may be missing in the answer.
        let asked_at = Instant::now();
        Ok(Self { generations: all_active(session, &MODELS).await?, asked_at })
    }

    /// The generation to read now; `None` if it is not known any more.
    fn of(&self, table: ReadTable, now: Instant) -> Option<Generation> {
        let is_valid = now.saturating_duration_since(self.asked_at) < LEASE;
        self.last(table).filter(|_| is_valid)
    }

    fn last(&self, table: ReadTable) -> Option<Generation> {
        let place = MODELS.iter().position(|model| model.table == table)?;
        self.generations.get(place)?.as_ref().ok().copied()
    }

    /// Takes an answer, unless a newer question is answered already.
    fn update(&mut self, answer: Self) {
        if answer.asked_at < self.asked_at {
            return;
        }
        for (model, generation) in MODELS.iter().zip(&answer.generations) {
            let last = self.last(model.table);
            match generation {
                Ok(generation) if last == Some(*generation) => {}
                Ok(generation) => {
                    tracing::info!(model = model.group, %generation, "another generation of a read table is active");
                }
                Err(error) if last.is_some() => {
                    let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, reason, "reads of a table get 503");
                }
                Err(_) => {}
            }
        }
        *self = answer;
    }
}

impl ActiveGenerations {
    /// Asks for the first time.
    ///
    /// # Errors
    /// Cassandra does not respond.
    pub(crate) async fn read(session: Arc<Session>) -> Result<Self, Error> {
        let answer = Active::ask(&session).await?;
        // Logged where it is not what `setup` leaves.
        let generations = MODELS.iter().map(|_| Ok(Generation::FIRST)).collect();
        let mut active = Active { generations, asked_at: answer.asked_at };
        active.update(answer);
        Ok(Self { session, active: Arc::new(Mutex::new(active)) })
    }

    /// Asks again and again until the shutdown.
    pub(crate) fn follow(&self, mut shutdown: Shutdown) {
        let generations = self.clone();
        tokio::spawn(async move {
            let mut has_failed = false;
            let mut ticks = interval(ASK_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tokio::select! { _ = ticks.tick() => {}, () = shutdown.requested() => return }
                match generations.refresh().await {
                    Ok(()) => has_failed = false,
                    // Logged once per outage, not per query.
                    Err(error) if !has_failed => {
                        has_failed = true;
                        let error = format!("{:#}", anyhow::Error::new(error));
                        let lease_s = LEASE.as_secs();
                        tracing::warn!(
                            error,
                            lease_s,
                            "the active generations of the read tables are unknown; the last ones are read for that long"
                        );
                    }
                    Err(_) => {}
                }
            }
        });
    }

    /// Asks once.
    pub(super) async fn refresh(&self) -> Result<(), Error> {
        let answer = Active::ask(&self.session).await?;
        self.lock().update(answer);
        Ok(())
    }

    /// The generation of a table that is to be read now.
    pub(super) fn of(&self, table: ReadTable) -> Result<Generation, Problem> {
        let generation = self.lock().of(table, Instant::now());
        generation.ok_or_else(|| Problem::unavailable("which read table is the active one is not known; retry later"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Active> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BALANCES: ReadTable = ReadTable::BalanceByVendor;
    const QUANTITIES: ReadTable = ReadTable::ItemQuantityByDay;

    fn answer(numbers: [i32; 2], asked_at: Instant) -> Active {
        let generation = |number| Generation::new(number).ok_or_else(|| Error::new("reading", "not a generation"));
        Active { generations: numbers.map(generation).into(), asked_at }
    }

    #[test]
    fn each_table_has_its_own_generation() {
        let now = Instant::now();
        let mut active = answer([1, 1], now);
        active.update(answer([1, 3], now));
        let of = |active: &Active| [BALANCES, QUANTITIES].map(|table| active.of(table, now).map(Generation::get));
        assert_eq!(of(&active), [Some(1), Some(3)]);
        active.update(answer([0, 3], now));
        assert_eq!(of(&active), [None, Some(3)], "a row without a generation");
    }

    #[test]
    fn an_answer_counts_for_the_time_of_the_lease() {
        let start = Instant::now();
        let after = |time: Duration| start + time;
        let mut active = answer([1, 1], start);
        let of = |active: &Active, at: Duration| active.of(BALANCES, after(at)).map(Generation::get);
        let short = Duration::from_millis(1);
        assert_eq!(of(&active, LEASE - short), Some(1));
        assert_eq!(of(&active, LEASE), None);
        active.update(answer([2, 1], after(LEASE)));
        assert_eq!(of(&active, LEASE), Some(2));
        // The late answer to an earlier question.
        active.update(answer([1, 1], after(LEASE - short)));
        assert_eq!(of(&active, LEASE), Some(2));
        assert_eq!(of(&active, LEASE + LEASE), None);
    }
}
