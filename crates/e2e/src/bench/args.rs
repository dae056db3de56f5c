//! The command line.

use std::path::PathBuf;

use super::floor::{FrontArgs, WorkerArgs};
use super::trace_cost::LoopArgs;

/// Measures the whole pipeline on this machine, and a floor for comparison
#[derive(Debug, clap::Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Example, with the servers of `scripts/services up`:\n  scripts/bench --only http --quick")]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print the hardware needed for 10^5 and 10^6 commands/s, from a run's results
    Capacity(CapacityArgs),
    /// Print how unevenly the carts of a file of commands are used
    Skew(SkewArgs),
    /// Count the instructions that a trace context costs a checkout, without servers; needs valgrind
    Trace,
    /// The checkouts whose instructions are counted; the bench starts it
    #[command(hide = true)]
    TraceLoop(LoopArgs),
    /// The floor's HTTP side; the bench starts it
    #[command(hide = true)]
    FloorFront(FrontArgs),
    /// The floor's consuming side; the bench starts it
    #[command(hide = true)]
    FloorWorker(WorkerArgs),
}

/// The parts of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Bench {
    /// Commands over HTTP, closed and open loop, without and with the projectors
    Http,
    /// Commands that wait in the topic, to journal and events
    Backlog,
    /// Purchases that wait in their topic, to each read table
    Projectors,
    /// From a checkout's answer to its rows in the read tables
    Freshness,
    /// One client's commands while others attack (system), beside the same without them (floor); fails above twice the latency
    Hostile,
    /// What a command costs with more carts, lines, partitions and workers; memory of the cart-processor
    Scale,
    /// How long a start takes, and how long clients wait when a service dies, joins or leaves
    Restart,
    /// What a request of ordinary load costs, and why: short sessions, all services running, without a floor
    Ordinary,
    /// Time and memory of `cartctl audit` and `rehearse`: a log of many commands, and what has come since a checkpoint; no floor
    Audit,
    /// Other carts' commands while a cart is parked (system), beside the same without it (floor); fails above twice the p99
    Parked,
    /// CPU time of all services with a trace collector and nothing sampled (system), beside that without a collector (floor), in
    /// pairs; fails if it is more by more than the pairs vary
    Traces,
}

impl Bench {
    pub(crate) const ALL: [Self; 11] = [
        Self::Http,
        Self::Backlog,
        Self::Projectors,
        Self::Freshness,
        Self::Hostile,
        Self::Scale,
        Self::Restart,
        Self::Ordinary,
        Self::Audit,
        Self::Parked,
        Self::Traces,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Backlog => "backlog",
            Self::Projectors => "projectors",
            Self::Freshness => "freshness",
            Self::Hostile => "hostile",
            Self::Scale => "scale",
            Self::Restart => "restart",
            Self::Ordinary => "ordinary",
            Self::Audit => "audit",
            Self::Parked => "parked",
            Self::Traces => "traces",
        }
    }
}

/// The settings of a run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    /// Run only these, comma-separated; by default all
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Bench>,

    /// Use small numbers and one repetition, to check that the bench works
    #[arg(long)]
    pub(crate) quick: bool,

    /// Measure commands over HTTP only without the projectors
    #[arg(long)]
    pub(crate) without_projectors: bool,

    /// Repetitions of each measurement, alternating between floor and system; by default 3, with --quick 1
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) repetitions: Option<u32>,

    /// Seconds of each measurement over HTTP; by default 10, with --quick 2
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: Option<u64>,

    /// Commands to warm up floor and system, each with its servers; by default 40,000, with --quick 2,000
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub(crate) warm_up: Option<u64>,

    /// Numbers of clients of the closed loop, comma-separated; by default 1,16,64,256,1024, with --quick 1,64
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) clients: Vec<u32>,

    /// Commands of a backlog and of the audited log, and purchases for a projector; by default 1,000,000, with --quick 100,000
    #[arg(long, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    pub(crate) commands: Option<u64>,

    /// Partitions of each topic
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) partitions: u16,

    /// Cart-processors, and workers of the floor; not of `ordinary` and `traces`
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) processors: u16,

    /// Cart-processors of `ordinary` and `traces`, and so many of each projector
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) instances: u16,

    /// Workers of each cart-processor, and threads of each of the floor's
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,

    /// Produce and insert each command alone in the floor, without batching
    #[arg(long)]
    pub(crate) bare_floor: bool,

    /// Folder of the results; by default a new one in target/bench
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

impl RunArgs {
    pub(crate) fn benches(&self) -> Vec<Bench> {
        if self.only.is_empty() { Bench::ALL.to_vec() } else { self.only.clone() }
    }

    pub(crate) fn repetitions(&self) -> u32 {
        self.repetitions.unwrap_or(if self.quick { 1 } else { 3 })
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.quick { 2 } else { 10 })
    }

    pub(crate) fn warm_up(&self) -> u64 {
        self.warm_up.unwrap_or(if self.quick { 2_000 } else { 40_000 })
    }

    pub(crate) fn clients(&self) -> Vec<u32> {
        match (self.clients.as_slice(), self.quick) {
            ([], true) => vec![1, 64],
            ([], false) => vec![1, 16, 64, 256, 1_024],
            (clients, _) => clients.to_vec(),
        }
    }

    pub(crate) fn commands(&self) -> u64 {
        self.commands.unwrap_or(if self.quick { 100_000 } else { 1_000_000 })
    }
}

/// The input of the capacity.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CapacityArgs {
    /// results.json of a run
    #[arg(long)]
    pub(crate) from: PathBuf,

    /// File of real commands (CSV, plain or gzipped); its skew bounds the use of more partitions
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
}

/// The input of the skew.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SkewArgs {
    /// File of commands (CSV, plain or gzipped)
    #[arg(long)]
    pub(crate) data: PathBuf,
}
