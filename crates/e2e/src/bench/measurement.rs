//! Measurements, their medians, and the ratios of measurements that were made side by side.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::load::Outcome;
use super::meter::{LOAD, Reading};

/// The subject of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Subject {
    /// The same hops without logic.
    Floor,
    /// The services of this project.
    System,
}

/// Values by name; the name includes the unit.
pub(crate) type Values = BTreeMap<String, f64>;

/// One repetition of one case.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measurement {
    pub(crate) bench: String,
    pub(crate) case: String,
    pub(crate) subject: Subject,
    pub(crate) repetition: u32,
    pub(crate) values: Values,
}

/// The median and the range of the repetitions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

/// One figure of one case: of the system, of the floor, and their ratio.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) bench: String,
    pub(crate) case: String,
    pub(crate) name: String,
    pub(crate) system: Option<Spread>,
    pub(crate) floor: Option<Spread>,
    /// The ratio within each repetition, so that a slow minute of the machine affects both.
    pub(crate) ratio: Option<Spread>,
}

/// All figures, in the order of their cases.
pub(crate) fn summarise(measurements: &[Measurement]) -> Vec<Figure> {
    let mut cases: Vec<(&str, &str)> = Vec::new();
    for one in measurements {
        if !cases.contains(&(&one.bench, &one.case)) {
            cases.push((&one.bench, &one.case));
        }
    }
    let mut figures = Vec::new();
    for (bench, case) in cases {
        let of_case: Vec<_> = measurements.iter().filter(|one| one.bench == bench && one.case == case).collect();
        let names: BTreeSet<&String> = of_case.iter().flat_map(|one| one.values.keys()).collect();
        for name in names {
            let of = |subject| {
                let of_subject = of_case.iter().filter(move |one| one.subject == subject);
                of_subject.filter_map(|one| Some((one.repetition, *one.values.get(name)?))).collect::<BTreeMap<_, _>>()
            };
            let (system, floor) = (of(Subject::System), of(Subject::Floor));
            let pairs = system.iter().filter_map(|(repetition, value)| Some((*value, *floor.get(repetition)?)));
            let ratios = pairs.filter(|(_, floor)| *floor > 0.0).map(|(system, floor)| system / floor).collect();
            figures.push(Figure {
                bench: bench.to_owned(),
                case: case.to_owned(),
                name: name.clone(),
                system: Spread::of(system.into_values().collect()),
                floor: Spread::of(floor.into_values().collect()),
                ratio: Spread::of(ratios),
            });
        }
    }
    figures
}

/// Adds the values of a load's answers; `unit` is a command or a request.
pub(crate) fn add_outcome(values: &mut Values, outcome: &Outcome, unit: &str) {
    let mut add = |name: &str, value: f64| values.insert(name.to_owned(), value);
    add(&format!("{unit}s/s"), outcome.rate());
    add("failed", outcome.failures() as f64);
    for (status, count) in &outcome.failed {
        add(&format!("status {status}"), *count as f64);
    }
    let ms = |us: u64| us as f64 / 1_000.0;
    for (name, quantile) in [("p50 ms", 0.5), ("p95 ms", 0.95), ("p99 ms", 0.99), ("p99.9 ms", 0.999)] {
        add(name, ms(outcome.latency.value_at_quantile(quantile)));
    }
    add("max ms", ms(outcome.latency.max()));
}

/// Adds the usage per `unit` (a command or an event), by process and for all but the load, and the memory of each process.
pub(crate) fn add_usage(values: &mut Values, used: &Reading, count: u64, unit: &str) {
    let each = |amount: f64| amount / (count.max(1) as f64);
    let (mut cpu_ms, mut switches) = (0.0, 0.0);
    for (name, usage) in &used.0 {
        values.insert(format!("CPU-ms/{unit} {name}"), each(usage.cpu_ms));
        values.insert(format!("switches/{unit} {name}"), each(usage.switches));
        values.insert(format!("MiB {name}"), usage.memory_mib);
        if name != LOAD {
            cpu_ms += usage.cpu_ms;
            switches += usage.switches;
        }
    }
    values.insert(format!("CPU-ms/{unit}"), each(cpu_ms));
    values.insert(format!("switches/{unit}"), each(switches));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(subject: Subject, repetition: u32, value: f64) -> Measurement {
        let values = Values::from([("commands/s".to_owned(), value)]);
        Measurement { bench: "http".to_owned(), case: "1 client".to_owned(), subject, repetition, values }
    }

    #[test]
    fn ratios_are_of_measurements_side_by_side() {
        // The machine was slow in the second round: the ratio is the same.
        let figures = summarise(&[
            measurement(Subject::Floor, 0, 100.0),
            measurement(Subject::System, 0, 90.0),
            measurement(Subject::Floor, 1, 50.0),
            measurement(Subject::System, 1, 45.0),
            measurement(Subject::System, 2, 70.0),
        ]);
        assert_eq!(figures.len(), 1);
        assert_eq!(figures[0].ratio, Some(Spread { median: 0.9, min: 0.9, max: 0.9 }));
        assert_eq!(figures[0].system, Some(Spread { median: 70.0, min: 45.0, max: 90.0 }));
        assert_eq!(figures[0].floor, Some(Spread { median: 75.0, min: 50.0, max: 100.0 }));
    }
}
