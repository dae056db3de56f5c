//! Logs, metrics, health and shutdown of every service.

mod admin;
mod backoff;
mod certificate;
mod exit;
mod log_limit;
mod log_lines;
mod metrics;
mod readiness;
mod secret;
mod shutdown;
mod startup;
mod telemetry;

pub use admin::{AdminArgs, health, health_and_metrics, serve_admin};
pub use backoff::Backoff;
pub use certificate::certificate_advice;
pub use exit::exit_code;
pub use log_limit::LogLimit;
pub use metrics::{
    COMMON_METRICS, Collect, Counter, Definition, Gauge, Histogram, Kind, Label, Metrics, MetricsText, Sample, Store,
};
pub use readiness::Readiness;
pub use secret::{Secret, SecretError};
pub use shutdown::{Shutdown, shutdown_signal};
pub use startup::{Startup, StartupArgs, probe, wait_for, wait_for_unless};
pub use telemetry::{LogArgs, LogFormat};
