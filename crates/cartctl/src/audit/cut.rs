//! [`Cut`]: up to where each topic must have been followed by everything downstream.

use serde::Serialize;

/// Offsets by partition that were noted before anything was read. What stands before them must have reached everything
/// downstream by the time that that was read; what stands behind them may have, or may not. Without an entry: all of it must.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cut {
    /// On `cart-commands`.
    pub commands: Vec<i64>,
    /// On `cart-events`.
    pub events: Vec<i64>,
    /// On `item-purchased`.
    pub purchases: Vec<i64>,
}

impl Cut {
    /// Whether an offset is before the cut.
    pub(crate) fn is_before(cut: &[i64], partition: i32, offset: i64) -> bool {
        let end = usize::try_from(partition).ok().and_then(|partition| cut.get(partition));
        end.is_none_or(|end| offset < *end)
    }
}

/// Of what was read: what is before the cut. The services work while the topics are read one after the other, so that each
/// shows more than the one before; up to the cut all of them must show the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpToCut {
    /// Records on `cart-commands` that are commands.
    pub commands: u64,
    /// Events on `cart-events` of commands before the cut.
    pub events: u64,
    /// Events in the journal of commands before the cut.
    pub journal_events: u64,
    /// Records on `item-purchased`.
    pub purchases: u64,
    /// Where it is.
    pub cut: Cut,
}
