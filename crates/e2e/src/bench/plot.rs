//! The figures as plots.

use std::path::Path;

use anyhow::Context as _;
use plotters::prelude::*;

use super::measurement::{Figure, Spread};

const SIZE: (u32, u32) = (900, 500);

/// A line and its points.
struct Series {
    name: String,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

/// Writes the plots whose figures were measured.
pub(crate) fn write(figures: &[Figure], folder: &Path) -> anyhow::Result<()> {
    let plots = [
        ("http", "http-commands.svg", " clients", "commands/s", "clients"),
        ("http", "http-p50.svg", " clients", "p50 ms", "clients"),
        ("http", "http-p99.svg", " clients", "p99 ms", "clients"),
        ("http", "http-open-p50.svg", " % of the most", "p50 ms", "% of the most commands/s"),
        ("http", "http-open-p99.svg", " % of the most", "p99 ms", "% of the most commands/s"),
        ("ordinary", "ordinary-requests.svg", " clients", "requests/s", "clients"),
        ("ordinary", "ordinary-p50.svg", " clients", "p50 ms", "clients"),
        ("ordinary", "ordinary-p99.svg", " clients", "p99 ms", "clients"),
        ("ordinary", "ordinary-cpu.svg", " clients", "CPU-ms/request", "clients"),
    ];
    for (bench, file, unit, name, x_label) in plots {
        let of_bench: Vec<_> = figures.iter().filter(|figure| figure.bench == bench).collect();
        let series = series(&of_bench, unit, name);
        if series.iter().any(|series| series.points.len() > 1) {
            draw(&folder.join(file), name, x_label, &series).with_context(|| format!("drawing {file}"))?;
        }
    }
    Ok(())
}

/// The cases `<number><unit>[, projectors]` of system and floor.
fn series(figures: &[&Figure], unit: &str, name: &str) -> Vec<Series> {
    type Pick = fn(&Figure) -> Option<Spread>;
    let kinds: [(&str, &str, RGBColor, Pick); 4] = [
        ("system", "", BLUE, |figure| figure.system),
        ("floor", "", BLACK, |figure| figure.floor),
        ("system, projectors running", ", projectors", RED, |figure| figure.system),
        ("floor, projectors running", ", projectors", RGBColor(140, 140, 140), |figure| figure.floor),
    ];
    let of_kind = |(kind, suffix, colour, pick): (&str, &str, RGBColor, Pick)| {
        let point = |figure: &&Figure| {
            let x = figure.case.strip_suffix(suffix)?.strip_suffix(unit)?.parse().ok()?;
            Some((x, pick(figure)?.median))
        };
        let points = figures.iter().filter(|figure| figure.name == name).filter_map(point).collect();
        Series { name: kind.to_owned(), colour, points }
    };
    kinds.into_iter().map(of_kind).collect()
}

/// Both axes are logarithmic: the numbers of clients double, and the tail is far from the median.
fn draw(path: &Path, title: &str, x_label: &str, series: &[Series]) -> anyhow::Result<()> {
    let points = || series.iter().flat_map(|series| &series.points);
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::MAX, 0.001), |(low, high): (f64, f64), value| (low.min(value), high.max(value)))
    };
    let (left, right) = bounds(&mut points().map(|(x, _)| *x));
    let (bottom, top) = bounds(&mut points().map(|(_, y)| y.max(0.001)));
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((left * 0.9..right * 1.1).log_scale(), (bottom * 0.8..top * 1.25).log_scale())?;
    chart.configure_mesh().x_desc(x_label).y_desc(title).light_line_style(WHITE).draw()?;
    for Series { name, colour, points } in series.iter().filter(|series| !series.points.is_empty()) {
        let colour = *colour;
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(4))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}
