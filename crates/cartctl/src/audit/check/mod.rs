//! The comparison, without I/O: evidence in, report out.

mod client;
mod discards;
mod events;
mod journal;
mod log;
mod published;
mod purchases;
mod sightings;
mod skips;
mod tables;

pub(super) use purchases::{Sold, sold};
pub use sightings::check as check_sightings;

use super::evidence::Evidence;
use super::report::{ClientView, Counts, Findings, Kind, Report};
use crate::ListedRow;

/// Makes all comparisons, and adds to `findings`.
#[must_use]
pub fn check(evidence: &Evidence, mut findings: Findings) -> Report {
    let mut counts = Counts::default();
    for log in &evidence.changed {
        let expected = "the records before the last checkpoint as they were audited";
        findings.add(Kind::LogChanged, log, Some(&expected), Some(&"other records"));
    }
    let published = published::by_cart(evidence, &mut findings, &mut counts);
    let log = log::replay(evidence, &published, &mut findings, &mut counts);
    events::check(evidence, &log, &published, &mut findings);
    journal::check(evidence, &log, &published, &mut findings, &mut counts);
    let mut client = ClientView::default();
    client::check(evidence, &log, &published, &mut findings, &mut client);
    let sold = purchases::check(evidence, &published, &mut findings, &mut counts);
    tables::check(evidence, &sold, &mut findings, &mut counts);
    skips::check(evidence, &mut findings);
    discards::check(evidence, &mut findings);
    let skipped = evidence.skips.iter().filter(|skip| skip.holds()).cloned().collect();
    let discarded = evidence.discards.iter().filter(|discard| discard.holds()).cloned().collect();
    let parked_rows = evidence.tables.parked.iter();
    let parked_rows = parked_rows.map(|(table, row)| ListedRow::of(table.model().group, row)).collect();
    Report::new(counts, evidence.up_to_cut(), client, (skipped, discarded, parked_rows), findings)
}
