//! The figures as text: one table per bench, three lines per case.

use std::collections::BTreeSet;
use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::measurement::{Figure, Spread};
use super::results::Results;

/// The columns of a bench; the others are in the JSON.
const COLUMNS: [&str; 24] = [
    "commands/s",
    "requests/s",
    "events/s",
    "ready ms",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "failed",
    "catch-up s",
    "CPU-ms/command",
    "CPU-ms/command ingest",
    "CPU-ms/command cart-processor",
    "CPU-ms/command kafka",
    "CPU-ms/command cassandra",
    "CPU-ms/command load",
    "CPU-ms/request",
    "CPU-ms/event",
    "CPU-ms/event reader",
    "MiB cart-processor",
    "s",
    "peak MiB",
    "CPU-s",
];

/// The usage of these is also printed by process and kind, one per line, since there are too many for columns.
const DETAILED: [(&str, &str); 2] = [("request", "request"), ("s", "second")];

/// Writes all tables.
pub(crate) fn write(results: &Results, out: &mut impl Write) -> io::Result<()> {
    let mut benches: Vec<&str> = results.figures.iter().map(|figure| figure.bench.as_str()).collect();
    benches.dedup();
    for bench in benches {
        let figures: Vec<_> = results.figures.iter().filter(|figure| figure.bench == bench).collect();
        writeln!(out, "\n{bench}\n{}", table(&figures))?;
        for (unit, unit_name) in DETAILED {
            if let Some(table) = details(&figures, unit) {
                writeln!(out, "\n{bench}, a {unit_name}, by process and kind\n{table}")?;
            }
        }
    }
    let machine = &results.machine;
    writeln!(
        out,
        "\n{} processors ({}), {:.0} GB of memory, {}",
        machine.processors, machine.model, machine.memory_gb, machine.kernel
    )?;
    writeln!(out, "Medians, ± half of the spread; the ratio is the system's figure over the floor's beside it.")
}

fn table(figures: &[&Figure]) -> Table {
    let columns: Vec<_> =
        COLUMNS.into_iter().filter(|name| figures.iter().any(|figure| figure.name == *name)).collect();
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([&["case", ""][..], &columns].concat());
    for number in 2..columns.len() + 2 {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut cases: Vec<_> = figures.iter().map(|figure| figure.case.as_str()).collect();
    cases.dedup();
    for case in cases {
        let of_case: Vec<_> = figures.iter().filter(|figure| figure.case == case).collect();
        let find = |name: &str| of_case.iter().find(|figure| figure.name == name);
        type Pick = fn(&Figure) -> Option<Spread>;
        let lines: [(&str, Pick); 3] =
            [("system", |figure| figure.system), ("floor", |figure| figure.floor), ("ratio", |figure| figure.ratio)];
        for (line, pick) in lines {
            if of_case.iter().all(|figure| pick(figure).is_none()) {
                continue;
            }
            let cell = |name: &&str| find(name).and_then(|figure| pick(figure)).map_or_else(String::new, shown);
            let cells = columns.iter().map(cell);
            let name = if line == "system" { case } else { "" };
            table.add_row([name.to_owned(), line.to_owned()].into_iter().chain(cells));
        }
    }
    table
}

/// The system's figures `<what>/<unit> <who>`, if there are any.
fn details(figures: &[&Figure], unit: &str) -> Option<Table> {
    let who = |figure: &Figure| {
        let (what, who) = figure.name.split_once(&format!("/{unit} "))?;
        (what != "switches").then(|| who.to_owned())
    };
    let shown_here: Vec<_> = figures.iter().filter_map(|figure| Some((who(figure)?, *figure))).collect();
    let mut cases: Vec<_> = shown_here.iter().map(|(_, figure)| figure.case.as_str()).collect();
    cases.dedup();
    let lines: BTreeSet<_> = shown_here.iter().map(|(who, figure)| (who.as_str(), figure.name.as_str())).collect();
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([&[""][..], &cases].concat());
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for (_, name) in &lines {
        let of_case = |case: &&str| shown_here.iter().find(|(_, figure)| figure.case == *case && figure.name == *name);
        let cell = |case| of_case(case).and_then(|(_, figure)| figure.system).map_or_else(String::new, shown);
        table.add_row([(*name).to_owned()].into_iter().chain(cases.iter().map(cell)));
    }
    (!lines.is_empty()).then_some(table)
}

/// About three digits, and the range of the repetitions.
fn shown(Spread { median, min, max }: Spread) -> String {
    let number = match median {
        big if big >= 100.0 => format!("{big:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        small if small >= 1.0 => format!("{small:.2}"),
        tiny => format!("{tiny:.3}"),
    };
    let spread = if median > 0.0 { (max - min) / median * 50.0 } else { 0.0 };
    if spread >= 0.5 { format!("{number} ±{spread:.0}%") } else { number }
}

#[cfg(test)]
mod tests {
    use super::super::{audit, hostile, parked, traces};
    use super::*;

    #[test]
    fn what_is_shown_while_it_runs_has_a_column() {
        for name in audit::SHOWN.iter().chain(&hostile::SHOWN).chain(&parked::SHOWN).chain(&traces::SHOWN) {
            assert!(COLUMNS.contains(name), "{name}");
        }
    }

    #[test]
    fn details_have_a_line_for_each_process_and_kind() {
        let figure = |case: &str, name: &str| Figure {
            bench: String::from("ordinary"),
            case: case.to_owned(),
            name: name.to_owned(),
            system: Spread::of(vec![2.0]),
            floor: None,
            ratio: None,
        };
        let figures = [
            figure("1 clients", "Produce/request kafka"),
            figure("1 clients", "CPU-ms/request ingest"),
            figure("1 clients", "CPU-ms/request"),
            figure("64 clients", "switches/request ingest"),
            figure("64 clients", "Produce/request kafka"),
            figure("idle", "CPU-ms/s kafka"),
        ];
        let figures: Vec<_> = figures.iter().collect();
        let lines: Vec<_> = details(&figures, "request").expect("a table").lines().collect();
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(lines[0].contains("| 1 clients | 64 clients |"), "{lines:#?}");
        assert!(lines[2].starts_with("| CPU-ms/request ingest |") && lines[3].starts_with("| Produce/request kafka |"));
        assert!(details(&figures, "command").is_none());
    }
}
