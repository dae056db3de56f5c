//! What a run says while it measures.

use std::io::Write as _;

use super::measurement::Measurement;

/// Tells how far it is.
pub(super) fn say(text: &str) {
    // Nobody may be there to read it.
    writeln!(std::io::stderr().lock(), "{text}").unwrap_or_default();
}

/// Tells what was just measured, and keeps it.
pub(super) fn keep(measurements: &mut Vec<Measurement>, measurement: Measurement, shown: &[&str]) {
    let values = shown.iter().filter_map(|name| Some(format!("{name} {:.2}", measurement.values.get(*name)?)));
    let values = values.collect::<Vec<_>>().join(", ");
    say(&format!("{} · {:?} · {} · {values}", measurement.case, measurement.subject, measurement.repetition));
    measurements.push(measurement);
}
