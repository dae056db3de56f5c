//! What operators request of consumer groups, whatever program they use: what is refused, and which records say what is wanted.

mod group;
mod pause;
mod resume;
mod skip;

use cart::{Control, ControlRecord};
use chrono::{SubsecRound as _, Utc};

pub use group::{Group, PartitionCut};
pub use pause::{PauseRequest, WantedPause};
pub use resume::ResumeRequest;
pub use skip::SkipRequest;

/// A record of what an operator wants now.
#[must_use]
pub fn signed(by: &str, reason: &str, control: Control) -> ControlRecord {
    // Avro has microseconds.
    ControlRecord { by: by.to_owned(), at: Utc::now().trunc_subsecs(6), reason: reason.to_owned(), control }
}
