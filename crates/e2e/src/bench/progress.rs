//! Prints the progress of a run on standard error.

use std::io::Write as _;

use super::measurement::Measurement;

/// Prints a line.
pub(super) fn say(text: &str) {
    // Standard error may be closed.
    writeln!(std::io::stderr().lock(), "{text}").unwrap_or_default();
}

/// Prints a measurement, and keeps it.
pub(super) fn keep(measurements: &mut Vec<Measurement>, measurement: Measurement, shown: &[&str]) {
    let values = shown.iter().filter_map(|name| Some(format!("{name} {:.2}", measurement.values.get(*name)?)));
    let values = values.collect::<Vec<_>>().join(", ");
    say(&format!("{} · {:?} · {} · {values}", measurement.case, measurement.subject, measurement.repetition));
    measurements.push(measurement);
}
