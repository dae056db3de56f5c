//! The times and the trace of a batch's steps.

use std::time::Instant;

use trace::Work;

use crate::metrics::STEP_SECONDS;

/// Measures the steps of a batch, one after the other (`processor_step_seconds`), and traces them.
pub(super) struct Steps {
    started_at: Instant,
    pub(super) work: Work,
}

impl Steps {
    pub(super) fn begin() -> Self {
        Self { started_at: Instant::now(), work: Work::default() }
    }

    /// A step has ended, and the next begins.
    pub(super) fn ended(&mut self, step: &'static str) {
        self.measure(step);
        self.work.step(step);
    }

    /// The step has ended that journals.
    pub(super) fn journalled(&mut self, rows: usize) {
        self.measure("journal");
        self.work.database_step("cassandra", "INSERT", "cart_journal", rows);
    }

    fn measure(&mut self, step: &'static str) {
        let now = Instant::now();
        STEP_SECONDS.with(&[step]).record(now - self.started_at);
        self.started_at = now;
    }
}
