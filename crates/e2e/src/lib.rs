//! Tests of the whole system: the harness, the faults, the bench, and the end-to-end tests in `tests/`.
//!
//! * [`harness`]: an installation for one test, and its processes.
//! * [`mod@alerts`]: injects faults, and waits for Prometheus' alerts. The binary of that name.
//! * [`mod@faults`]: injects faults under load, then runs the audit. The binary of that name.
//! * [`mod@bench`]: measures the system, and a floor of the same hops for comparison. The binary of that name.
//! * [`hostile`]: malicious clients, for a test and the bench.
//! * [`mod@rollout`]: plays a rolling update of the Kubernetes manifests. The binary of that name.
//! * [`mod@upgrade`]: upgrades a running system from an older build, and rolls it back. The binary of that name.
//! * [`mod@modules`]: which modules import each other in circles. The binary of that name.
//!
//! The checks, `cartctl audit` and `cartctl reconcile`, are in `crates/cartctl`.

pub mod alerts;
pub mod bench;
pub mod faults;
pub mod harness;
pub mod hostile;
pub mod modules;
pub mod rollout;
pub mod upgrade;
