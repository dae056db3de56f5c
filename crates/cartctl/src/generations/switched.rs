//! What a switch has done, as it is printed.

use std::fmt;

use cart::GenerationSwitch;
use serde::Serialize;

use crate::operate::time;

/// What was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Switched {
    pub(super) model: &'static str,
    /// The generation that readers saw before.
    pub(super) from: i32,
    /// The generation that readers see now.
    pub(super) to: i32,
    /// The digest of the differences between the two.
    pub(super) accepted_diff: String,
    pub(super) is_dry_run: bool,
    /// Whether readers saw it already.
    pub(super) was_active: bool,
    /// The last switch before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_switch: Option<LastSwitch>,
    /// Whether pauses of an earlier switch, which has died, were ended.
    pub(super) ended_earlier_pauses: bool,
    /// How long both groups stood still.
    pub(super) paused_ms: u64,
    /// How many rows were compared meanwhile: those that had changed since the first comparison, or all.
    pub(super) rows_compared_paused: u64,
    /// Partitions in which the first generation does not run, and was further back than the second one.
    pub(super) was_behind: Vec<i32>,
    /// What operators have paused meanwhile, with who and why: it holds.
    pub(super) left_paused: Vec<String>,
}

/// Who has switched, and why.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastSwitch {
    at: String,
    by: String,
    reason: String,
    accepted_diff: String,
}

impl LastSwitch {
    pub(super) fn of(switch: &GenerationSwitch) -> Self {
        let GenerationSwitch { at, by, reason, accepted_diff } = switch.clone();
        Self { at: time(at), by, reason, accepted_diff }
    }
}

impl fmt::Display for LastSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, by, reason, accepted_diff } = self;
        write!(f, "since {at}, by {by}, diff {accepted_diff}")?;
        if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
    }
}

impl fmt::Display for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, from, to, accepted_diff, .. } = self;
        if self.ended_earlier_pauses {
            writeln!(f, "pauses of an earlier switch were ended")?;
        }
        if self.was_active {
            write!(f, "{model}: readers see generation {to} already")?;
            return self.last_switch.as_ref().map_or(Ok(()), |last| write!(f, "\n  {last}"));
        }
        if self.is_dry_run {
            return write!(
                f,
                "{model}: readers would see generation {to} after {from}, diff {accepted_diff}; nothing was changed (--dry-run)"
            );
        }
        write!(f, "{model}: readers see generation {to} after {from}, diff {accepted_diff}")?;
        let (paused_ms, rows) = (self.paused_ms, self.rows_compared_paused);
        write!(f, "\n  both stood still for {paused_ms} ms, in which {rows} rows were compared again")?;
        if !self.was_behind.is_empty() {
            write!(f, "\n  generation {from} does not run in partitions {:?}, and was behind there", self.was_behind)?;
        }
        if !self.left_paused.is_empty() {
            write!(f, "\n  an operator has paused meanwhile, and that holds: {}", self.left_paused.join(", "))?;
        }
        write!(
            f,
            "\n  generation {from} is kept; `cartctl switch {model} --back` returns to it while its projector runs"
        )
    }
}
