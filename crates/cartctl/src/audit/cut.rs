//! [`Cut`]: the offsets that all consumers have reached.

use serde::Serialize;

/// Offsets by partition, noted before anything was read. The effects of records before them must be in everything that was
/// read; the effects of later records may be. Without an entry, all records count as before the cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cut {
    /// On `cart-commands`.
    pub commands: Vec<i64>,
    /// On `cart-events`.
    pub events: Vec<i64>,
    /// On `item-purchased`.
    pub purchases: Vec<i64>,
    /// On `cart-commands-dead-letter`.
    pub dead_letters: Vec<i64>,
}

impl Cut {
    /// Whether an offset is before the cut.
    pub(crate) fn is_before(cut: &[i64], partition: i32, offset: i64) -> bool {
        let end = usize::try_from(partition).ok().and_then(|partition| cut.get(partition));
        end.is_none_or(|end| offset < *end)
    }
}

/// Counts of what is before the cut. The services work while the topics are read one after the other, so each topic has later
/// records than the one before. Up to the cut all must agree.
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
    pub cut: Cut,
}
