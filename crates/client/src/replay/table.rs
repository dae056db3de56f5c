//! The report as text.

use std::io::{self, Write};

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};

use super::report::{Report, Unfinished};
use super::statistics::{Deviation, Latency};

/// Writes the tables, and the commands with unexpected outcomes.
///
/// # Errors
/// Writing fails.
pub fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}\n{}", counts(report), latencies(report))?;
    if !report.counts_by_reason.is_empty() {
        writeln!(out, "{}", counts_by_reason(report))?;
    }
    let retries = report.retries;
    writeln!(
        out,
        "{} commands in {:.1} s: {:.0}/s  ({} loop, run id {})",
        report.commands, report.elapsed_seconds, report.commands_per_second, report.load, report.run_id
    )?;
    writeln!(
        out,
        "retries: {} pending, {} unavailable, {} not executed, {} unknown",
        retries.pending, retries.unavailable, retries.not_executed, retries.unknown
    )?;
    if report.interrupted {
        writeln!(out, "interrupted: the rest of the source was not sent")?;
    }
    if let Some(unfinished) = &report.unfinished {
        write_unfinished(out, report, unfinished)?;
    }
    if !report.failures.is_empty() {
        write_commands(out, "not answered", &report.first_unanswered, report.unanswered)?;
        write_commands(out, "not as intended", &report.first_unintended, report.unintended)?;
        if report.unintended == 0 {
            write_commands(out, "rejected", &report.first_refused, report.refused)?;
        }
    }
    for failure in &report.failures {
        writeln!(out, "FAILED: {failure}")?;
    }
    Ok(())
}

fn counts(report: &Report) -> Table {
    let mut table = table(&["action", "outcome", "commands"], 2);
    for count in &report.counts {
        table.add_row([count.action, &count.outcome, &count.count.to_string()]);
    }
    table
}

fn counts_by_reason(report: &Report) -> Table {
    let mut table = table(&["raw row", "outcome", "rows"], 2);
    for count in &report.counts_by_reason {
        table.add_row([&count.reason, &count.outcome, &count.count.to_string()]);
    }
    table
}

fn latencies(report: &Report) -> Table {
    let mut table = table(&["latency (ms)", "answers", "p50", "p95", "p99", "p99.9", "max"], 1);
    let by_action = report.latency_by_action_us.iter().map(|(action, latency)| (*action, latency));
    for (name, latency) in by_action.chain(report.latency_us.iter().map(|latency| ("all", latency))) {
        let Latency { count, p50, p95, p99, p999, max, .. } = *latency;
        let mut row = vec![name.to_owned(), count.to_string()];
        row.extend([p50, p95, p99, p999, max].map(millis));
        table.add_row(row);
    }
    table
}

fn table(header: &[&str], first_number: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(first_number) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Writes which part of a file was sent, and how to continue.
fn write_unfinished(out: &mut impl Write, report: &Report, unfinished: &Unfinished) -> io::Result<()> {
    let Unfinished { line, fault, answered_after, options } = unfinished;
    let Report { accepted, refused, .. } = report;
    write!(out, "sent: every command before line {line}")?;
    if *answered_after > 0 {
        write!(out, ", and {answered_after} after it, which will be sent again with the same keys")?;
    }
    writeln!(out, "; {accepted} accepted and {refused} rejected in this run")?;
    match fault {
        Some(_) => {
            writeln!(out, "not sent: line {line} and all lines after it")?;
            writeln!(
                out,
                "to continue: correct line {line}, do not change the lines before it, and run the same command with \
                 {options}"
            )
        }
        None => {
            writeln!(out, "not sent or not answered: line {line}, and others after it")?;
            writeln!(out, "to continue: do not change the file, and run the same command with {options}")
        }
    }
}

/// Microseconds as milliseconds, exactly.
pub(crate) fn millis(us: u64) -> String {
    format!("{}.{:03}", us / 1_000, us % 1_000)
}

fn write_commands(out: &mut impl Write, what: &str, first: &[Deviation], all: u64) -> io::Result<()> {
    if first.is_empty() {
        return Ok(());
    }
    writeln!(out, "{what} (the first {} of {all}):", first.len())?;
    for Deviation { sequence, line, time, member, action, outcome, reason } in first {
        let line = line.map(|line| format!(" (line {line})")).unwrap_or_default();
        writeln!(out, "  {sequence}{line} at {time}, member {member}: {action}: {outcome}: {reason}")?;
    }
    Ok(())
}
