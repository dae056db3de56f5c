//! The hardware that a rate needs, from a run's results. `docs/performance.md` explains the formulas.

use std::io::Write as _;

use cart::contract::{STAGES, group};
use comfy_table::{Table, presets};

use super::args::CapacityArgs;
use super::results::Results;
use super::skew::Skew;

const RATES: [f64; 2] = [1e5, 1e6];

/// Copies of every record and row.
const REPLICATION: f64 = 3.0;

/// The cost of a follower's copy for a broker, as a share of the leader's: a follower fetches and appends, and serves no
/// clients.
const FOLLOWER_COST: f64 = 0.5;

/// The maximum utilisation of a processor, with room for the loss of a node and an hour's peak.
const UTILISATION: f64 = 0.5;

/// Processors of one broker or node.
const NODE_PROCESSORS: f64 = 16.0;

/// Processors of one of our processes.
const PROCESS_PROCESSORS: f64 = 4.0;

/// The closed loops from which the CPU time of a command is read: the busiest one that was measured.
const CLIENTS: [u32; 5] = [256, 1_024, 64, 16, 1];

/// Prints the table.
pub(crate) fn print(args: &CapacityArgs) -> anyhow::Result<()> {
    let results = Results::read(&args.from)?;
    let skew = args.data.as_deref().map(Skew::read).transpose()?;
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["", "CPU-ms/command", "10^5 commands/s", "10^6 commands/s"]);
    let cpu = |name: &str| {
        let suffix = if is_projector(name) { ", projectors" } else { "" };
        let figure = format!("CPU-ms/command {name}");
        CLIENTS.iter().find_map(|clients| results.system("http", &format!("{clients} clients{suffix}"), &figure))
    };
    let services = ["ingest"].into_iter().chain(STAGES.iter().map(|stage| stage.group));
    let services = services.map(|name| (name, 1.0, PROCESS_PROCESSORS, "processes"));
    for (name, copies, processors, unit) in services.chain([
        ("kafka", 1.0 + (REPLICATION - 1.0) * FOLLOWER_COST, NODE_PROCESSORS, "brokers"),
        ("cassandra", REPLICATION, NODE_PROCESSORS, "nodes"),
    ]) {
        let Some(cpu) = cpu(name) else { continue };
        let cells = RATES.map(|rate| {
            let busy = rate * cpu / 1_000.0 * copies;
            let least = if unit == "processes" { 2.0 } else { REPLICATION };
            format!("{:.0} {unit} ({busy:.0} CPUs busy)", (busy / UTILISATION / processors).ceil().max(least))
        });
        table.add_row([vec![name.to_owned(), format!("{cpu:.3}")], cells.to_vec()].concat());
    }
    partitions(&mut table, &results, skew.as_ref())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{table}")?;
    writeln!(
        out,
        "\nReplication {REPLICATION}, processors at most {:.0} % busy; {NODE_PROCESSORS} for a broker or node, {PROCESS_PROCESSORS} for a process.",
        UTILISATION * 100.0
    )?;
    Ok(())
}

fn is_projector(name: &str) -> bool {
    STAGES.iter().any(|stage| stage.group == name && name != group::CART_PROCESSOR)
}

/// One worker serves a partition, so a worker's speed limits a partition; the fullest partition has more than its share.
fn partitions(table: &mut Table, results: &Results, skew: Option<&Skew>) -> anyhow::Result<()> {
    let figure = |name| {
        let of_case = |carts| results.system("backlog", &format!("{carts} carts at a time"), name);
        of_case(4_096).or_else(|| of_case(64))
    };
    let Some(cpu) = figure("CPU-ms/command cart-processor") else { return Ok(()) };
    anyhow::ensure!(cpu > 0.0, "the results say that a command costs the cart-processor nothing");
    // A worker is one thread, which can use one second of CPU time per second, up to the maximum utilisation.
    let worker = 1_000.0 / cpu * UTILISATION;
    let mut cells = vec![String::from("partitions of cart-commands"), format!("{worker:.0} commands/s a worker")];
    let mut fullest = vec![String::from("the fullest over its fair share"), String::new()];
    let mut vendor = vec![String::from("largest vendor, purchases/s in one partition"), String::new()];
    for rate in RATES {
        let mut partitions = (rate / worker).ceil();
        if let Some(skew) = skew {
            // With more partitions the fullest one has a larger share. Two iterations are close enough.
            for _ in 0..2 {
                partitions = (rate / worker * skew.imbalance(rate, partitions)).ceil();
            }
            fullest.push(format!("{:.2}", skew.imbalance(rate, partitions)));
            vendor.push(format!("{:.0}", rate * skew.lines_a_command * skew.vendor_share));
        }
        cells.push(format!("{partitions:.0}"));
    }
    table.add_row(cells);
    if skew.is_some() {
        table.add_row(fullest);
        table.add_row(vendor);
    }
    Ok(())
}
