//! Everything that tests the whole system: the harness, the faults, the bench, and the end-to-end tests in `tests/`.
//!
//! * [`harness`]: an installation of its own for a test, and its processes.
//! * [`faults`]: everything goes wrong under load, then the audit. The binary of that name.
//! * [`mod@bench`]: how fast, beside a floor of the same hops. The binary of that name.
//! * [`hostile`]: clients that mean no good, for a test and the bench.
//!
//! What it compares with, `cartctl audit` and `cartctl reconcile`, is in `crates/cartctl`.

pub mod bench;
pub mod faults;
pub mod harness;
pub mod hostile;
