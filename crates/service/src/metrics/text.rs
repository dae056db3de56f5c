//! The metrics of another of this project's services, as its `/metrics` shows them.

/// The text of `/metrics`, in Prometheus' format.
#[derive(Debug, Clone, Copy)]
pub struct MetricsText<'a>(pub &'a str);

impl<'a> MetricsText<'a> {
    fn lines(self) -> impl Iterator<Item = (&'a str, u64)> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        lines.filter_map(|(series, value)| Some((series, value.split('.').next()?.parse().ok()?)))
    }

    /// The whole part of a value. `series` is a name with its labels, as the service writes them.
    #[must_use]
    pub fn whole(self, series: &str) -> Option<u64> {
        self.lines().find(|(found, _)| *found == series).map(|(_, value)| value)
    }

    /// The sum over all labels of a metric that has labels.
    #[must_use]
    pub fn sum(self, name: &str) -> u64 {
        let is_of = |series: &str| series.strip_prefix(name).is_some_and(|labels| labels.starts_with('{'));
        self.lines().filter(|(series, _)| is_of(series)).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_name_and_labels() {
        let text = "# HELP a x\na{b=\"1\"} 3\na{b=\"2\"} 4.9\nab{b=\"1\"} 8\nc 1790000000.25\nbroken\n";
        let samples = MetricsText(text);
        assert_eq!(
            (samples.whole("a{b=\"2\"}"), samples.whole("c"), samples.whole("a")),
            (Some(4), Some(1_790_000_000), None)
        );
        assert_eq!((samples.sum("a"), samples.sum("d")), (7, 0));
    }
}
