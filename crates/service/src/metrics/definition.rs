//! What a metric is: its name, meaning, labels and buckets, in one place with its type.

use ::metrics::{Key, KeyName, Label as KeyLabel, Level, Metadata, SharedString, with_recorder};

const METADATA: Metadata<'static> = Metadata::new("cart", Level::INFO, None);

/// A metric as Prometheus is to show it. [`crate::define_metrics`] makes one, together with what records it.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// The name; its last word, or the one before `_total`, is the unit.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The labels, in the order in which their values are given.
    pub labels: &'static [Label],
    /// The meaning.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts values up to each of these bounds. All instances have the same bounds, so that they can be added up.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word of Prometheus' text format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The name.
    pub name: &'static str,
    /// All values, when they are known before the start: a series of each exists from then on.
    pub values: &'static [&'static str],
}

impl Label {
    /// A label with these values.
    #[must_use]
    pub const fn one_of(name: &'static str, values: &'static [&'static str]) -> Self {
        Self { name, values }
    }

    /// A label whose values the installation decides.
    #[must_use]
    pub const fn any(name: &'static str) -> Self {
        Self { name, values: &[] }
    }
}

impl Definition {
    const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, kind, labels: &[], help }
    }

    fn key(&self, values: &[&str]) -> Key {
        debug_assert_eq!(values.len(), self.labels.len(), "{} has other labels", self.name);
        if values.is_empty() {
            return Key::from_static_name(self.name);
        }
        let labels = self.labels.iter().zip(values);
        let labels = labels.map(|(label, value)| KeyLabel::new(label.name, SharedString::from((*value).to_owned())));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }

    /// Every combination of values: each label that has none listed takes the next of `known`. None without enough of these.
    fn series<'a>(&self, known: &[&'a str]) -> Vec<Vec<&'a str>> {
        let mut known = known.iter();
        let mut all: Vec<Vec<&str>> = vec![Vec::new()];
        for label in self.labels {
            let values: Vec<&str> = match label.values {
                [] => known.next().copied().into_iter().collect(),
                listed => listed.to_vec(),
            };
            let extend = |series: &Vec<&'a str>, value| series.iter().copied().chain([value]).collect();
            all = all.iter().flat_map(|series| values.iter().map(move |value| extend(series, *value))).collect();
        }
        all
    }

    pub(super) fn describe(&self) {
        with_recorder(|recorder| {
            let name = KeyName::from_const_str(self.name);
            match self.kind {
                Kind::Counter => recorder.describe_counter(name, None, self.help.into()),
                Kind::Gauge => recorder.describe_gauge(name, None, self.help.into()),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, self.help.into()),
            }
        });
    }

    /// Makes the series of these values exist: a query for the growth of a counter does not see the step from absent to 1.
    pub(super) fn start(&self, known: &[&str]) {
        for values in self.series(known) {
            let key = self.key(&values);
            with_recorder(|recorder| match self.kind {
                Kind::Counter => drop(recorder.register_counter(&key, &METADATA)),
                Kind::Histogram(_) => drop(recorder.register_histogram(&key, &METADATA)),
                // Without a value it would be 0, which may be wrong.
                Kind::Gauge => {}
            });
        }
    }
}

macro_rules! metric {
    ($(#[$attribute:meta])* $name:ident, $register:ident) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name(Definition);

        impl $name {
            /// The same with labels.
            #[must_use]
            pub const fn labels(self, labels: &'static [Label]) -> Self {
                Self(Definition { labels, ..self.0 })
            }

            /// What it is.
            #[must_use]
            pub const fn definition(&self) -> Definition {
                self.0
            }

            /// The series with these values of the labels. Keep it where it is used often: finding it takes a lookup.
            pub fn with(&self, values: &[&str]) -> ::metrics::$name {
                let key = self.0.key(values);
                with_recorder(|recorder| recorder.$register(&key, &METADATA))
            }

            /// Makes series exist before they are used: all combinations of the listed values, with `known` for the labels
            /// without a list.
            pub fn start(&self, known: &[&str]) {
                self.0.start(known);
            }
        }
    };
}

metric!(
    /// A counter.
    Counter, register_counter
);
metric!(
    /// A gauge.
    Gauge, register_gauge
);
metric!(
    /// A histogram.
    Histogram, register_histogram
);

impl Counter {
    /// A counter without labels. The name ends with its unit and `_total`.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self(Definition::new(name, Kind::Counter, help))
    }
}

impl Gauge {
    /// A gauge without labels.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self(Definition::new(name, Kind::Gauge, help))
    }
}

impl Histogram {
    /// Bounds of times: from a fast reply to a client's timeout.
    pub const SECONDS: &'static [f64] =
        &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

    /// Bounds of the size of a batch.
    pub const RECORDS: &'static [f64] =
        &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0];

    /// A histogram of times without labels.
    #[must_use]
    pub const fn seconds(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Self::SECONDS, help)
    }

    /// A histogram with these bounds, without labels.
    #[must_use]
    pub const fn new(name: &'static str, bounds: &'static [f64], help: &'static str) -> Self {
        Self(Definition::new(name, Kind::Histogram(bounds), help))
    }
}

/// Defines the metrics of a crate: a static of each, and `ALL`, which [`crate::Metrics::install`] describes. So none can be
/// used that is not described.
///
/// ```
/// service::define_metrics! {
///     COMMANDS: Counter = Counter::new("shop_commands_total", "Commands that were decided");
///     STEP: Histogram = Histogram::seconds("shop_step_seconds", "Time of a step").labels(&[Label::any("step")]);
/// }
/// # fn main() {
/// COMMANDS.with(&[]).increment(1);
/// assert_eq!(ALL.len(), 2);
/// # }
/// ```
#[macro_export]
macro_rules! define_metrics {
    ($($name:ident: $kind:ident = $definition:expr;)+) => {
        #[allow(unused_imports, reason = "not every crate has labels, or each kind")]
        use $crate::{Counter, Definition, Gauge, Histogram, Label};

        $(pub(crate) static $name: $kind = $definition;)+

        /// What this crate exports.
        pub static ALL: &[Definition] = &[$($name.definition()),+];
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_each_combination_of_listed_values_with_the_known_ones() {
        const LABELS: &[Label] =
            &[Label::any("group"), Label::one_of("outcome", &["committed", "failed"]), Label::any("topic")];
        let metric = Counter::new("transactions_total", "").labels(LABELS).definition();
        assert_eq!(metric.series(&["g", "t"]), [["g", "committed", "t"], ["g", "failed", "t"]]);
        assert_eq!(metric.series(&["g"]), [[""; 0]; 0]);
        assert_eq!(Counter::new("records_total", "").definition().series(&[]), [[""; 0]]);
    }
}
