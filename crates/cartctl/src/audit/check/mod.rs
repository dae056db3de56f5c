//! The comparison, without any I/O: evidence in, report out.

mod client;
mod events;
mod journal;
mod log;
mod purchases;
mod sightings;
mod tables;

use std::fmt;

use cart::{CartEvent, Event};

pub use sightings::check as check_sightings;

use super::evidence::Evidence;
use super::report::{ClientView, Counts, Findings, Report};

/// Compares everything with everything; `findings` may have some already.
#[must_use]
pub fn check(evidence: &Evidence, mut findings: Findings) -> Report {
    let mut counts = Counts::default();
    let published = events::by_cart(evidence, &mut findings, &mut counts);
    let log = log::replay(evidence, &published, &mut findings, &mut counts);
    events::check(evidence, &log, &published, &mut findings);
    journal::check(evidence, &log, &published, &mut findings, &mut counts);
    let mut client = ClientView::default();
    client::check(evidence, &log, &published, &mut findings, &mut client);
    let sold = purchases::check(evidence, &published, &mut findings, &mut counts);
    tables::check(evidence, &sold, &mut findings, &mut counts);
    Report::new(counts, evidence.up_to_cut(), client, findings)
}

/// An event in a line.
struct Shown<'a>(&'a CartEvent);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.0;
        let item = event.event.item();
        let kind = match &event.event {
            Event::ItemAdded { .. } => "added",
            Event::ItemRemoved { .. } => "removed",
            Event::ItemQuantityIncreased { .. } => "increased",
            Event::ItemQuantityDecreased { .. } => "decreased",
            Event::ItemPurchased { .. } => "purchased",
        };
        write!(
            f,
            "event {} {kind} {} × {} '{}' at {} of vendor {} (id {}, session {}, command {} at {}, {})",
            event.sequence_number,
            item.quantity.get(),
            item.product_id,
            item.name.as_str(),
            item.price,
            item.vendor_id,
            event.event_id,
            event.session_id,
            event.command_id,
            event.position,
            event.occurred_at
        )
    }
}
