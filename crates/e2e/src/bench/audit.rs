//! Time and memory of `cartctl audit` and `cartctl rehearse` on a log of many commands: everything, and what has come since a
//! checkpoint. There is no floor.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::ensure;
use procfs::process::Process;

use super::args::RunArgs;
use super::backlog::{drain, fill};
use super::environment::BenchEnvironment;
use super::http::catch_up;
use super::measurement::{Measurement, Subject, Values};
use super::progress::{keep, say};
use super::shop::Shopper;

const BENCH: &str = "audit";

/// Carts whose commands alternate in the log, and the carts of each of these shoppers.
const SHOPPERS: u32 = 4_096;
const CARTS_EACH: u64 = 40;

/// Commands between two looks.
const SINCE: u64 = 1_000;

/// The pause between two readings of the memory.
const INTERVAL: Duration = Duration::from_millis(20);

/// The timeout of `cartctl`, also as its option.
const TIMEOUT: Duration = Duration::from_secs(3_600);
const TIMEOUT_S: &str = "3600";

pub(super) const SHOWN: [&str; 3] = ["s", "peak MiB", "CPU-s"];

pub(super) async fn measure(args: &RunArgs) -> anyhow::Result<Vec<Measurement>> {
    let environment = BenchEnvironment::make(BENCH, args).await?;
    let mut shoppers: Vec<_> = (0..SHOPPERS).map(|number| Shopper::new(number, CARTS_EACH)).collect();
    let folder = environment.installation.folder().join("checkpoint").display().to_string();
    let audit = ["audit", "--timeout-s", TIMEOUT_S, "--checkpoint", &folder];
    let full = [&audit[..], &["--full"]].concat();
    let mut measurements = Vec::new();
    let (mut numbers, mut commands) = (0, args.commands());
    for cases in [
        &[("everything", &audit[..]), ("rehearse", &["rehearse"][..])][..],
        &[("since the checkpoint", &audit[..])],
        &[("nothing new", &audit[..]), ("--full", &full[..])],
    ] {
        if commands > 0 {
            add(&environment, args, &mut shoppers, commands, &mut numbers).await?;
        }
        for (case, arguments) in cases {
            let values = run(&environment, &format!("cartctl-{}", measurements.len()), arguments).await?;
            let case = format!("{case}, {numbers} commands");
            let one = Measurement { bench: BENCH.to_owned(), case, subject: Subject::System, repetition: 0, values };
            keep(&mut measurements, one, &SHOWN);
        }
        commands = if numbers == args.commands() { SINCE } else { 0 };
    }
    environment.remove().await?;
    Ok(measurements)
}

/// Appends commands, and has them processed by all services.
async fn add(
    environment: &BenchEnvironment,
    args: &RunArgs,
    shoppers: &mut [Shopper],
    commands: u64,
    numbers: &mut u64,
) -> anyhow::Result<()> {
    fill(environment, &[Subject::System], shoppers, commands, numbers).await?;
    let started_at = Instant::now();
    drain(environment, Subject::System, args.processors, commands).await?;
    let projectors = environment.start_projectors(1).await?;
    catch_up(environment.installation.kafka()).await?;
    say(&format!("{commands} commands are in all tables after {} s", started_at.elapsed().as_secs()));
    drop(projectors);
    Ok(())
}

/// Runs `cartctl` and measures its time, its CPU time and the most memory that it had.
async fn run(environment: &BenchEnvironment, name: &str, args: &[&str]) -> anyhow::Result<Values> {
    let started_at = Instant::now();
    let mut process = environment.installation.spawn(name, "cartctl", args.iter().copied())?;
    let id = process.id().cast_signed();
    let (mut peak_kib, mut ticks) = (0, 0);
    let status = {
        let mut ended = pin!(process.ended(TIMEOUT));
        loop {
            tokio::select! { status = &mut ended => break status?, () = tokio::time::sleep(INTERVAL) => {} }
            if let Ok(process) = Process::new(id)
                && let (Ok(status), Ok(stat)) = (process.status(), process.stat())
            {
                peak_kib = status.vmhwm.unwrap_or(0).max(peak_kib);
                ticks = (stat.utime + stat.stime).max(ticks);
            }
        }
    };
    ensure!(status.success(), "cartctl {args:?}: {status}: {}", process.log());
    Ok(Values::from([
        ("s".to_owned(), started_at.elapsed().as_secs_f64()),
        ("peak MiB".to_owned(), peak_kib as f64 / 1_024.0),
        ("CPU-s".to_owned(), ticks as f64 / procfs::ticks_per_second() as f64),
    ]))
}
