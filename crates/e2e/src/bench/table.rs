//! The figures for people: a table a bench, three lines a case.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::measurement::{Figure, Spread};
use super::results::Results;

/// The columns of a bench; the others are in the JSON.
const COLUMNS: [&str; 19] = [
    "commands/s",
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
    "CPU-ms/event",
    "CPU-ms/event reader",
    "MiB cart-processor",
];

/// Writes all tables.
pub(crate) fn write(results: &Results, out: &mut impl Write) -> io::Result<()> {
    let mut benches: Vec<&str> = results.figures.iter().map(|figure| figure.bench.as_str()).collect();
    benches.dedup();
    for bench in benches {
        let figures: Vec<_> = results.figures.iter().filter(|figure| figure.bench == bench).collect();
        writeln!(out, "\n{bench}\n{}", table(&figures))?;
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

/// Three digits or so, and how far the repetitions were apart.
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
