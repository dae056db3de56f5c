//! Measures the whole system on this machine, and, in turn with it, a floor for comparison.
//!
//! ```text
//! environment (system and floor on one installation) ─▶ http, backlog, ... ─▶ measurements ─▶ figures ─▶ table, JSON, SVG
//!      load (one thread, raw HTTP) ─┘   meter (/proc) ─┘
//! ```
//!
//! A figure alone means little on a shared machine; its ratio to the floor is the cost of the rules, Avro and the guarantees.
//! `scripts/bench` starts it.

#![expect(clippy::float_arithmetic, reason = "these are measurements, not money")]

mod args;
mod audit;
mod backlog;
mod capacity;
mod drain;
mod environment;
mod floor;
mod freshness;
mod hostile;
mod http;
mod judge;
mod load;
mod measurement;
pub(crate) mod meter;
mod ordinary;
mod parked;
mod plot;
mod produce;
mod progress;
mod restart;
mod results;
mod scale;
mod server_requests;
mod servers;
mod service_metrics;
mod shop;
mod skew;
mod table;
mod trace_cost;
mod traces;
mod wire;

use anyhow::{Context as _, ensure};

use args::{Bench, Command, RunArgs};
use progress::say;
use results::Results;

pub use args::Cli;

/// The program.
///
/// # Errors
/// A measurement fails; the earlier ones are lost.
pub async fn main(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        None => {
            let mut shutdown = service::shutdown_signal().context("listening for signals")?;
            shutdown.started();
            // All processes end when their owners are dropped.
            tokio::select! {
                result = run(&cli.run) => result,
                () = shutdown.requested() => anyhow::bail!("interrupted"),
            }
        }
        Some(Command::Capacity(args)) => capacity::print(&args),
        Some(Command::Skew(args)) => skew::print(&args),
        Some(Command::Trace) => trace_cost::print(),
        Some(Command::TraceLoop(args)) => trace_cost::run(&args),
        Some(Command::FloorFront(args)) => floor::front(&args).await,
        Some(Command::FloorWorker(args)) => floor::worker(&args).await,
    }
}

async fn run(args: &RunArgs) -> anyhow::Result<()> {
    let mut measurements = Vec::new();
    for bench in args.benches() {
        say(&format!("== {}", bench.name()));
        let measured = match bench {
            Bench::Http => http::measure(args).await,
            Bench::Backlog => backlog::measure(args).await,
            Bench::Projectors => drain::measure(args).await,
            Bench::Freshness => freshness::measure(args).await,
            Bench::Hostile => hostile::measure(args).await,
            Bench::Scale => scale::measure(args).await,
            Bench::Restart => restart::measure(args).await,
            Bench::Ordinary => ordinary::measure(args).await,
            Bench::Audit => audit::measure(args).await,
            Bench::Parked => parked::measure(args).await,
            Bench::Traces => traces::measure(args).await,
        };
        measurements.extend(measured.with_context(|| format!("measuring {}", bench.name()))?);
    }
    let results = Results::of(measurements);
    let folder = results.write(args.out.as_deref())?;
    table::write(&results, &mut std::io::stdout().lock()).context("writing the table")?;
    say(&format!("results and plots: {}", folder.display()));
    let figures = &results.figures;
    judged([hostile::judge(figures), parked::judge(figures), traces::judge(&results.measurements)])
}

/// All errors of the judges as one.
fn judged(verdicts: impl IntoIterator<Item = anyhow::Result<()>>) -> anyhow::Result<()> {
    let errors: Vec<_> = verdicts.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(errors.is_empty(), "{}", errors.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_has_the_verdict_of_each_judge() {
        let failed = |reason: &'static str| Err(anyhow::anyhow!(reason));
        assert!(judged([Ok(()), Ok(())]).is_ok());
        let error = judged([failed("late"), Ok(()), failed("lost")]).expect_err("two have failed");
        assert_eq!(error.to_string(), "late; lost");
    }
}
