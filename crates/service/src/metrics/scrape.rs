//! Gauges whose series are computed when they are read: a series ends with what it is about, such as a partition that was
//! revoked, and its value is that of the moment, also where a loop is stuck.

use std::fmt::Write as _;

use super::definition::Gauge;

/// One value of a gauge.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The gauge.
    pub gauge: &'static Gauge,
    /// The values of its labels.
    pub labels: Vec<String>,
    /// The value.
    pub value: f64,
}

/// Computes values. Called for each scrape.
pub type Collect = fn() -> Vec<Sample>;

/// The samples in Prometheus' text format.
pub(super) fn render(mut samples: Vec<Sample>, text: &mut String) {
    samples.sort_by(|a, b| (a.gauge.definition().name, &a.labels).cmp(&(b.gauge.definition().name, &b.labels)));
    let mut last = "";
    for Sample { gauge, labels, value } in samples {
        let definition = gauge.definition();
        let name = definition.name;
        let pairs: Vec<String> = definition
            .labels
            .iter()
            .zip(&labels)
            .map(|(label, value)| format!("{}=\"{}\"", label.name, escaped(value)))
            .collect();
        let head = if name == last {
            String::new()
        } else {
            format!("# HELP {name} {}\n# TYPE {name} gauge\n", definition.help)
        };
        // Writing to a string does not fail.
        writeln!(text, "{head}{name}{{{}}} {value}", pairs.join(",")).unwrap_or_default();
        last = name;
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::definition::Label;
    use super::*;

    #[test]
    fn samples_of_a_gauge_come_together_below_its_help() {
        static LAG: Gauge =
            Gauge::new("lag_records", "Records").labels(&[Label::any("group"), Label::any("partition")]);
        static UP: Gauge = Gauge::new("up", "Whether").labels(&[Label::any("name")]);
        let sample = |gauge, labels: &[&str], value| Sample {
            gauge,
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            value,
        };
        let mut text = String::from("before 1\n");
        let samples =
            vec![sample(&UP, &["a \"b\"\\"], 1.0), sample(&LAG, &["g", "1"], 0.25), sample(&LAG, &["g", "0"], 3e15)];
        render(samples, &mut text);
        let expected = r#"before 1
# HELP lag_records Records
# TYPE lag_records gauge
lag_records{group="g",partition="0"} 3000000000000000
lag_records{group="g",partition="1"} 0.25
# HELP up Whether
# TYPE up gauge
up{name="a \"b\"\\"} 1
"#;
        assert_eq!(text, expected);
    }
}
