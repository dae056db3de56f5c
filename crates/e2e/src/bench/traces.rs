//! The CPU time of all services with a trace collector and a sampler that records nothing (system), beside that without a collector
//! (floor), in pairs.
//!
//! Both sides run at the same time on installations of their own, and one of them is under load: without, with, with, without. So a
//! machine that gets faster or slower favours neither. Each repetition starts the services anew and swaps the installations.

use std::time::Duration;

use anyhow::ensure;

use super::args::RunArgs;
use super::environment::{BenchEnvironment, Named, Running, metered};
use super::http::catch_up;
use super::load::{Pace, Until};
use super::measurement::{Measurement, Subject, Values, add_outcome, add_usage};
use super::meter::Meter;
use super::progress::{keep, say};
use super::shop::Mix;

const BENCH: &str = "traces";

/// The clients' requests have no `traceparent`, so the sampler decides on each of them, and the services behind follow its decision, as with
/// the usual `parentbased_traceidratio`. No span is recorded, so no collector has to answer.
const NOT_SAMPLED: [(&str, &str); 2] =
    [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"), ("OTEL_TRACES_SAMPLER", "parentbased_always_off")];

/// The figure of which the pairs are compared. The load and the servers are not in it.
const CPU: &str = "CPU-ms/request";

/// The loads: few and many requests in a batch, and a steady rate.
const CASES: [(&str, u32, Pace); 3] =
    [("1 client", 1, Pace::Closed), ("16 clients", 16, Pace::Closed), ("120/s", 128, Pace::Open(120.0))];

/// The order of two pairs.
const ORDER: [Subject; 4] = [Subject::Floor, Subject::System, Subject::System, Subject::Floor];

/// Standard errors on each side of the mean of an interval of 95 %.
const INTERVAL: f64 = 1.96;

pub(super) const SHOWN: [&str; 4] = ["requests/s", "p99 ms", "failed", CPU];

pub(super) async fn measure(args: &RunArgs) -> anyhow::Result<Vec<Measurement>> {
    let args = RunArgs { processors: args.instances, ..args.clone() };
    let mut environments = [
        BenchEnvironment::make("traces_0", &args).await?.with_mix(Mix::Sessions),
        BenchEnvironment::make("traces_1", &args).await?.with_mix(Mix::Sessions),
    ];
    let mut measurements = Vec::new();
    for repetition in 0..args.repetitions() {
        environments.swap(0, 1);
        let [without, with] = &mut environments;
        without.set_variables(&[]);
        with.set_variables(&NOT_SAMPLED);
        let mut without = Side::start(without, &args, repetition).await?;
        let mut with = Side::start(with, &args, repetition).await?;
        for (case, clients, pace) in CASES {
            for (number, subject) in (0_u32..).zip(ORDER) {
                let side = if subject == Subject::System { &mut with } else { &mut without };
                let values = side.load(clients, pace, args.seconds()).await?;
                let (bench, case, repetition) = (BENCH.to_owned(), case.to_owned(), 2 * repetition + number / 2);
                keep(&mut measurements, Measurement { bench, case, subject, repetition, values }, &SHOWN);
            }
        }
    }
    for environment in environments {
        environment.remove().await?;
    }
    Ok(measurements)
}

/// Checks that the services use no more CPU time than without a collector, beyond what the pairs differ, if that was measured.
///
/// # Errors
/// They use more, or a request failed.
pub(super) fn judge(measurements: &[Measurement]) -> anyhow::Result<()> {
    let measured: Vec<_> = measurements.iter().filter(|one| one.bench == BENCH).collect();
    let failed = measured.iter().filter(|one| one.values.get("failed").is_some_and(|failed| *failed > 0.0)).count();
    ensure!(failed == 0, "requests failed in {failed} loads of the bench of traces");
    let ratios = ratios(&measured);
    let Some(Interval { low, mean, high }) = Interval::of(&ratios) else { return Ok(()) };
    let text = format!(
        "CPU time of all services, not sampled over no collector: {mean:.3} in {} pairs, 95 % interval {low:.3} to {high:.3}",
        ratios.len()
    );
    ensure!(low <= 1.0, "traces that are not recorded cost more than the pairs vary: {text}");
    say(&text);
    Ok(())
}

/// The ratio of each pair, of all loads.
fn ratios(measured: &[&Measurement]) -> Vec<f64> {
    let of = |subject| measured.iter().filter(move |one| one.subject == subject);
    let ratio = |with: &&Measurement| {
        let without = of(Subject::Floor).find(|one| one.case == with.case && one.repetition == with.repetition)?;
        Some(with.values.get(CPU)? / without.values.get(CPU).filter(|cpu| **cpu > 0.0)?)
    };
    of(Subject::System).filter_map(ratio).collect()
}

/// The geometric mean of ratios and its 95 % interval, from how much they vary.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Interval {
    low: f64,
    mean: f64,
    high: f64,
}

impl Interval {
    /// None of fewer than two.
    fn of(ratios: &[f64]) -> Option<Self> {
        let count = ratios.len() as f64;
        let mean = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / count;
        let squares: f64 = ratios.iter().map(|ratio| (ratio.ln() - mean).powi(2)).sum();
        let half = INTERVAL * (squares / (count - 1.0) / count).sqrt();
        (ratios.len() > 1).then(|| Self { low: (mean - half).exp(), mean: mean.exp(), high: (mean + half).exp() })
    }
}

/// All services of one installation, warm.
struct Side<'a> {
    environment: &'a BenchEnvironment,
    closed: Running,
    /// Other shoppers: after a closed loop few are at the checkout.
    open: Running,
    services: Meter,
    /// The processes, which end when they are dropped.
    _running: (Running, Vec<Named>),
}

impl<'a> Side<'a> {
    /// The shoppers of each repetition are others, since their carts are to be new.
    async fn start(environment: &'a BenchEnvironment, args: &RunArgs, repetition: u32) -> anyhow::Result<Self> {
        let running = environment.start(Subject::System).await?;
        let projectors = environment.start_projectors(args.instances).await?;
        let mut closed = (0..2 * repetition).fold(running.others(), |shoppers, _| shoppers.others());
        closed.warm_up(args.warm_up()).await?;
        catch_up(environment.installation.kafka()).await?;
        let mut services = Meter::default();
        for (name, process) in running.processes.iter().chain(&projectors) {
            services.add(name, process.id(), false);
        }
        Ok(Self { environment, open: closed.others(), closed, services, _running: (running, projectors) })
    }

    /// A load, and the CPU time until all read tables have it.
    async fn load(&mut self, clients: u32, pace: Pace, seconds: u64) -> anyhow::Result<Values> {
        let Self { environment, closed, open, services, .. } = self;
        let running = if matches!(pace, Pace::Open(_)) { open } else { closed };
        let work = async {
            let outcome = running.load(clients, pace, Until::After(Duration::from_secs(seconds))).await?;
            catch_up(environment.installation.kafka()).await?;
            Ok(outcome)
        };
        let (outcome, used) = metered(services, work).await?;
        let mut values = Values::new();
        add_outcome(&mut values, &outcome, "request");
        add_usage(&mut values, &used, outcome.answered, "request");
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(subject: Subject, repetition: u32, cpu: f64, failed: f64) -> Measurement {
        let values = Values::from([(CPU.to_owned(), cpu), ("failed".to_owned(), failed)]);
        Measurement { bench: BENCH.to_owned(), case: CASES[0].0.to_owned(), subject, repetition, values }
    }

    /// Pairs of 1 ms without a collector and these with one.
    fn pairs(with: &[f64]) -> Vec<Measurement> {
        let pair = |(number, with): (u32, &f64)| {
            [measurement(Subject::Floor, number, 1.0, 0.0), measurement(Subject::System, number, *with, 0.0)]
        };
        (0..).zip(with).flat_map(pair).collect()
    }

    #[test]
    fn more_than_the_pairs_vary_is_too_much() {
        assert!(judge(&[]).is_ok());
        assert!(judge(&pairs(&[1.1, 0.92, 1.05, 0.99])).is_ok());
        let error = judge(&pairs(&[1.1, 1.08, 1.11, 1.09])).expect_err("all are above 1").to_string();
        assert!(error.contains("1.095 in 4 pairs"), "{error}");
    }

    #[test]
    fn a_failed_request_is_an_error() {
        let error = judge(&[measurement(Subject::System, 0, 1.0, 1.0)]).expect_err("one failed").to_string();
        assert!(error.contains("in 1 loads"), "{error}");
    }

    #[test]
    fn the_interval_is_around_the_mean() {
        assert_eq!(Interval::of(&[1.2]), None);
        let Interval { low, mean, high } = Interval::of(&[0.8, 1.25]).expect("two");
        assert!((mean - 1.0).abs() < 1e-9 && (low * high - 1.0).abs() < 1e-9 && low < 0.7, "{low} {mean} {high}");
    }
}
