//! The topic `cart-control`: what operators want of consumer groups, and how their members follow it.
//!
//! ```text
//! cartctl pause ─▶ pause/<group>    ─▶ member: finishes and commits its batch, pauses ─▶ ack/<group>/<partition>
//! cartctl skip  ─▶ skip/<group>/... ─▶ member: goes past that record, if its hash is the expected one
//!                                      member: stopped at a record ─▶ stopped/<group>/<partition> ─▶ cartctl status
//! cartctl parked discard ─▶ discard/... ─▶ cart-processor: that command becomes a dead letter when its cart is tried
//! ```
//!
//! None of them moves an offset. The only way past a record is to apply it, or a skip or discard that stays recorded.
//!
//! A member that gets partitions reads the topic to its end before it applies a record of them. So a pause that was there
//! before holds, over restarts and rebalances. Without the topic nothing is paused and nothing is skipped: a record that was
//! skipped stops its partition again.

mod answers;
mod controls;
mod cuts;
mod follower;
mod holds;
mod member;
mod requests;
mod temporary;
mod topic;

pub use controls::{Ack, Controls, Discard, Entry, Pause, Skip, Stop, fits};
pub use follower::Follower;
pub use member::{Changes, MemberControl};
pub use requests::{Group, PartitionCut, PauseRequest, ResumeRequest, SkipRequest, WantedPause, signed};
pub use temporary::Temporary;
pub use topic::{ControlTopic, LogEntry, sha256};
