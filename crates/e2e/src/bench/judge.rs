//! Compares what was measured with a disturbance (system) with what was measured in turn without it (floor).

use super::measurement::Figure;

/// Returns the figures above the limit: those of `judged` with a median ratio above `ratio_max`, and each number of failed answers above 0.
pub(super) fn complaints(figures: &[Figure], bench: &str, judged: &[&str], ratio_max: f64) -> Vec<String> {
    let complaint = |figure: &Figure| {
        let ratio = figure.ratio.map_or(0.0, |ratio| ratio.median);
        let is_late = judged.contains(&figure.name.as_str()) && ratio > ratio_max;
        let is_lost = figure.name == "failed" && figure.system.is_some_and(|failed| failed.max > 0.0);
        (is_late || is_lost).then(|| format!("{}: {} ({ratio:.2} times)", figure.case, figure.name))
    };
    figures.iter().filter(|figure| figure.bench == bench).filter_map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use super::super::measurement::Spread;
    use super::*;

    fn figure(name: &str, system: f64, floor: f64) -> Figure {
        let spread = |value| Spread::of(vec![value]);
        let (bench, case) = ("hostile".to_owned(), "a flood".to_owned());
        let ratio = if floor > 0.0 { spread(system / floor) } else { None };
        Figure { bench, case, name: name.to_owned(), system: spread(system), floor: spread(floor), ratio }
    }

    #[test]
    fn reports_late_and_lost_answers() {
        let judged = |figures: &[Figure]| complaints(figures, "hostile", &["p50 ms", "p95 ms"], 2.0);
        let well = [figure("p50 ms", 3.9, 2.0), figure("p99 ms", 90.0, 2.0), figure("failed", 0.0, 0.0)];
        assert_eq!(judged(&well), [] as [String; 0]);
        let late = figure("p95 ms", 4.1, 2.0);
        assert_eq!(judged(std::slice::from_ref(&late)), ["a flood: p95 ms (2.05 times)"]);
        assert_eq!(complaints(&[late], "parked", &["p95 ms"], 2.0), [] as [String; 0], "it is another bench's");
        assert_eq!(judged(&[figure("failed", 1.0, 0.0)]), ["a flood: failed (0.00 times)"]);
    }
}
