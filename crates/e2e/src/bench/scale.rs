//! The cost of a command with more carts, lines of a cart, partitions and workers. Each case is a backlog. There is no floor,
//! since the cases are compared with each other.

use super::args::RunArgs;
use super::backlog::{drain, fill};
use super::environment::BenchEnvironment;
use super::measurement::{Measurement, Subject, Values};
use super::progress::{keep, say};
use super::shop::{LINES, Shopper};

const BENCH: &str = "scale";

/// The commands of a case, unless its carts need more.
const COMMANDS: u64 = 200_000;
const COMMANDS_QUICK: u64 = 20_000;

/// The numbers of alternating carts. Each cart comes at least twice: first not in memory, then in memory.
const CARTS: [u32; 3] = [10_000, 100_000, 1_000_000];
const CARTS_QUICK: [u32; 2] = [1_000, 10_000];

/// The highest number of carts exceeds the default cache: there is a case with the default, and one that keeps all carts.
const ALL_IN_MEMORY: &[&str] = &["--cart-cache-mib", "4096"];

/// The lines of a cart at its checkout.
const LINES_OF_A_CART: [u32; 4] = [1, 10, 100, 1_000];

/// Few, so that large carts are also bought before the end.
const CARTS_WITH_LINES: u32 = 100;

const PARTITIONS: [u16; 4] = [1, 6, 12, 48];
const WORKERS: [u16; 3] = [1, 2, 4];

/// The number of alternating carts in the other cases.
const CARTS_USUAL: u32 = 4_096;

const SHOWN: [&str; 4] =
    ["commands/s", "CPU-ms/command cart-processor", "CPU-ms/command cassandra", "MiB cart-processor"];

struct Case {
    name: String,
    carts: u32,
    lines: u32,
    partitions: u16,
    workers: u16,
    processor_args: &'static [&'static str],
}

pub(super) async fn measure(args: &RunArgs) -> anyhow::Result<Vec<Measurement>> {
    say("warming the servers up");
    one(&Case::usual(args, String::new()), args).await?;
    let mut measurements = Vec::new();
    for case in cases(args) {
        for repetition in 0..args.repetitions() {
            let values = one(&case, args).await?;
            let (bench, case) = (BENCH.to_owned(), case.name.clone());
            let one = Measurement { bench, case, subject: Subject::System, repetition, values };
            keep(&mut measurements, one, &SHOWN);
        }
    }
    Ok(measurements)
}

async fn one(case: &Case, args: &RunArgs) -> anyhow::Result<Values> {
    let commands = if args.quick { COMMANDS_QUICK } else { COMMANDS }.max(2 * u64::from(case.carts));
    let environment = BenchEnvironment::make_with(BENCH, case.partitions, args).await?;
    let environment = environment.with_processors(case.workers, case.processor_args);
    let mut shoppers: Vec<_> = (0..case.carts).map(|number| Shopper::new(number, 1).with_lines(case.lines)).collect();
    fill(&environment, &[Subject::System], &mut shoppers, commands, &mut 0).await?;
    let values = drain(&environment, Subject::System, args.processors, commands).await?;
    environment.remove().await?;
    Ok(values)
}

impl Case {
    /// The base case.
    fn usual(args: &RunArgs, name: String) -> Self {
        Self {
            name,
            carts: CARTS_USUAL,
            lines: LINES,
            partitions: args.partitions,
            workers: args.workers,
            processor_args: &[],
        }
    }
}

fn cases(args: &RunArgs) -> Vec<Case> {
    let usual = |name: String| Case::usual(args, name);
    let mut cases = Vec::new();
    let all_carts = if args.quick { CARTS_QUICK.as_slice() } else { &CARTS };
    // There are few checkouts, so that each command is one row, with few carts and with many.
    let lines = 1_000;
    cases.extend(all_carts.iter().map(|&carts| Case { carts, lines, ..usual(format!("{carts} carts")) }));
    if let Some(&carts) = all_carts.last() {
        let name = format!("{carts} carts, all in memory");
        cases.push(Case { carts, lines, processor_args: ALL_IN_MEMORY, ..usual(name) });
    }
    for lines in LINES_OF_A_CART {
        cases.push(Case { carts: CARTS_WITH_LINES, lines, ..usual(format!("{lines} lines a cart")) });
    }
    cases.extend(PARTITIONS.map(|partitions| Case { partitions, ..usual(format!("{partitions} partitions")) }));
    cases.extend(WORKERS.map(|workers| Case { workers, ..usual(format!("{workers} workers")) }));
    cases
}
