//! What every service exports.

use std::time::Instant;

crate::define_metrics! {
    BUILD_INFO: Gauge = Gauge::new("cart_build_info", "1, with the service's name and version as labels")
        .labels(&[Label::any("service"), Label::any("version")]);
    READY: Gauge = Gauge::new("cart_ready", "1 when the service is ready (/health/ready answers 200), else 0");
    STORE_SECONDS: Histogram = Histogram::seconds(
        "cart_store_seconds",
        "Time of an operation on a store, with the repetitions of its driver. Of the processor: journal_append, journal_load, and \
         journal_read of redelivered commands; of ingest: journal_read, table_read, parked_read; of projectors: table_read, \
         table_write, parked_read, parked_write, and in PostgreSQL offsets_read, parked_read and transaction",
    )
    .labels(&[Label::any("store"), Label::any("operation"), OUTCOME]);
    // What metrics-process sets.
    PROCESS_CPU: Counter =
        Counter::new("process_cpu_seconds_total", "CPU time of the process, of user and system, in whole seconds");
    PROCESS_OPEN_FDS: Gauge = Gauge::new("process_open_fds", "Open file descriptors");
    PROCESS_MAX_FDS: Gauge = Gauge::new("process_max_fds", "Most file descriptors that the process may open");
    PROCESS_VIRTUAL: Gauge = Gauge::new("process_virtual_memory_bytes", "Virtual memory");
    PROCESS_VIRTUAL_MAX: Gauge =
        Gauge::new("process_virtual_memory_max_bytes", "Most virtual memory that the process may have");
    PROCESS_RESIDENT: Gauge = Gauge::new("process_resident_memory_bytes", "Memory that is in RAM");
    PROCESS_START: Gauge =
        Gauge::new("process_start_time_seconds", "When the process was started, as Unix time");
    PROCESS_THREADS: Gauge = Gauge::new("process_threads", "Threads");
}

const OUTCOME: Label = Label::one_of("outcome", &["failed", "succeeded"]);

/// The store of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Cassandra.
    Cassandra,
    /// PostgreSQL.
    Postgres,
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::Cassandra => "cassandra",
            Self::Postgres => "postgresql",
        }
    }

    /// Makes the series of these operations exist.
    pub fn start(self, operations: &[&str]) {
        for operation in operations {
            STORE_SECONDS.start(&[self.name(), operation]);
        }
    }

    /// Does an operation and measures its time. One that is cancelled is not counted.
    ///
    /// # Errors
    /// As the operation.
    pub async fn time<T, E>(self, operation: &'static str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let started_at = Instant::now();
        let result = work.await;
        let outcome = if result.is_ok() { "succeeded" } else { "failed" };
        STORE_SECONDS.with(&[self.name(), operation, outcome]).record(started_at.elapsed());
        result
    }
}
