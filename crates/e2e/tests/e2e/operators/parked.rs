//! A cart is parked while generations are switched. Tries of parked carts that are killed, and two at once.

use anyhow::{Context as _, ensure};
use cart::contract::group::POPULAR_ITEMS;
use e2e::harness::{Process, Service, wait_until};
use serde_json::json;
use uuid::Uuid;

use crate::parking::{DEADLINE, System};

const RETRY: [&str; 5] = ["parked", "retry", "--all", "--wait-s", "60"];

/// Buys one item of a cart, so that the read tables have something.
async fn bought(system: &System, cart: Uuid) -> anyhow::Result<()> {
    system.added(cart).await?;
    let (status, answer) = system.send(cart, "/checkout", json!({})).await?;
    ensure!(status == 200, "{answer}");
    Ok(())
}

/// Parks carts: the rules panic for them in this cart-processor.
async fn park(system: &System, carts: &[Uuid], other: Uuid) -> anyhow::Result<()> {
    system.added(other).await?;
    for cart in carts {
        let (status, answer) = system.add(*cart, Uuid::new_v4()).await?;
        ensure!(status == 202 && answer["parked"] == true, "{status}: {answer}");
    }
    system.added(other).await?;
    for cart in carts {
        system.installation.becomes_parked(*cart, DEADLINE).await?;
    }
    Ok(())
}

fn panics(carts: &[Uuid]) -> String {
    let carts: Vec<String> = carts.iter().map(Uuid::to_string).collect();
    format!("decide-panics=return({})", carts.join("|"))
}

/// Starts a switch that stands where both groups stand.
async fn frozen_switch(system: &System) -> anyhow::Result<Process> {
    let switch = ["switch", POPULAR_ITEMS, "--to", "2", "--accept-diff", "none", "--by", "ops"];
    let stops = [("FAILPOINTS", String::from("switch-frozen=return(stop)"))];
    let switch = system.installation.start_cartctl(&switch, &stops)?;
    wait_until("the switch to stand", DEADLINE, async || match switch.state() {
        Some('T') => Ok(()),
        state => Err(format!("its state is {state:?}: {}", switch.log())),
    })
    .await?;
    Ok(switch)
}

pub(crate) async fn a_cart_is_parked_while_generations_are_switched() -> anyhow::Result<()> {
    let mut system = System::start("park_switch").await?;
    let carts = system.carts(2);
    let [bad, other] = carts[..] else { anyhow::bail!("two carts") };
    let mut processor = system.processor("").await?;
    bought(&system, bad).await?;
    bought(&system, other).await?;
    processor.terminate(DEADLINE).await?;
    let rebuilt = system.installation.cartctl(&["rebuild", POPULAR_ITEMS], &[], DEADLINE).await?;
    rebuilt.with(0, "had caught up")?;
    let second = [(Service::Projector(POPULAR_ITEMS), "g2", &["--generation", "2"][..])];
    let second = system.installation.start_all(&second).await?;

    let mut processor = system.processor(&panics(&[bad])).await?;
    let mut switch = frozen_switch(&system).await?;
    park(&system, &[bad], other).await?;
    bought(&system, other).await?;
    switch.resume()?;
    let ended = switch.ended(DEADLINE).await?;
    let log = switch.log();
    ensure!(ended.success() && log.contains("readers see generation 2 after 1"), "{ended}: {log}");
    let report = system.clean("parked, after the switch").await?;
    ensure!(report.counts.parked == 1, "{} commands are counted as parked", report.counts.parked);

    // The cart is repaired, and what it buys is in both generations.
    processor.terminate(DEADLINE).await?;
    let mut processor = system.processor("").await?;
    system.installation.retry_parked(bad).await?;
    bought(&system, bad).await?;
    let report = system.clean("after the repair").await?;
    ensure!(report.counts.parked == 0, "{} commands are counted as parked", report.counts.parked);
    system.installation.cartctl(&["diff", POPULAR_ITEMS, "1", "2"], &[], DEADLINE).await?.with(0, "diff none")?;
    processor.terminate(DEADLINE).await?;
    drop(second);
    system.installation.remove().await
}

/// Where a request of another try dies: before any is sent, after the first one was handed over, after all are in the log.
const DEATHS: [&str; 3] =
    ["retry-before-request=return", "retry-before-request=1*off->return", "retry-after-requests=return"];

/// Two parked carts, and no cart-processor.
async fn parked(system: &mut System) -> anyhow::Result<[Uuid; 2]> {
    let carts = system.carts(3);
    let [first, second, other] = carts[..] else { anyhow::bail!("three carts") };
    let mut panics = system.processor(&panics(&[first, second])).await?;
    park(system, &[first, second], other).await?;
    panics.terminate(DEADLINE).await?;
    Ok([first, second])
}

/// Two parked carts, and a cart-processor that can decide them.
async fn parked_and_repaired(system: &mut System) -> anyhow::Result<([Uuid; 2], Process)> {
    let carts = parked(system).await?;
    let repaired = system.processor("").await?;
    let others = system.carts(1);
    system.added(others[0]).await?;
    Ok((carts, repaired))
}

/// A try that no cart-processor carries out has another exit code than one that has failed. A cart that is not parked is refused.
async fn the_exit_code_says_what_became_of_a_try(system: &mut System) -> anyhow::Result<Process> {
    let carts = parked(system).await?;
    let listed = system.installation.cartctl(&["parked"], &[], DEADLINE).await?;
    listed.with(0, "  1 command waits, the oldest since 20")?.with(0, "2 carts are parked")?;
    let not_in_time = ["parked", "retry", "--all", "--wait-s", "1", "--json"];
    let tried = system.installation.cartctl(&not_in_time, &[], DEADLINE).await?.with(2, "notTried")?.json()?;
    let is_waiting = tried["result"]["live"] == 0 && tried["result"]["notTried"] == 2;
    ensure!(is_waiting && tried["selected"].as_array().is_some_and(|all| all.len() == 2), "{tried}");
    let repaired = system.processor("").await?;
    let tried = system.installation.cartctl(&[&RETRY[..], &["--json"]].concat(), &[], DEADLINE).await?;
    let tried = tried.with(0, "stillParked")?.json()?;
    ensure!(tried["result"]["stillParked"] == json!([]), "{tried}");
    let live = carts[0].to_string();
    let refused = system.installation.cartctl(&["parked", "retry", &live, "--json"], &[], DEADLINE).await?;
    let refused = refused.with(1, "is not parked")?.json()?;
    ensure!(refused["refused"].is_string(), "{refused}");
    Ok(repaired)
}

/// All carts are live, and each has its waiting command, once.
async fn all_live(system: &System, carts: [Uuid; 2], when: &str) -> anyhow::Result<()> {
    let parked = system.installation.parked().await?;
    ensure!(parked.is_empty(), "{when}: {parked:?}");
    for cart in carts {
        let (status, answer) = system.add(cart, Uuid::new_v4()).await?;
        ensure!(status == 200 && answer["version"] == 2, "{when}: {status}: {answer}");
    }
    let report = system.clean(when).await?;
    ensure!(report.counts.parked == 0, "{when}: {} commands are counted as parked", report.counts.parked);
    Ok(())
}

pub(crate) async fn tries_that_are_killed_or_come_twice_decide_each_command_once() -> anyhow::Result<()> {
    let mut system = System::start("retry_twice").await?;
    for death in DEATHS {
        let (carts, mut processor) = parked_and_repaired(&mut system).await?;
        system.installation.cartctl_dies(&RETRY, death, DEADLINE).await?;
        if death == DEATHS[0] {
            let waiting = system.installation.parked().await?.len();
            ensure!(waiting == carts.len(), "{waiting} carts are parked, though no try was requested");
        }
        // Those whose try was requested may be live by now.
        let repeated = system.installation.cartctl(&RETRY, &[], DEADLINE).await?;
        repeated.with(0, " live, 0 still parked")?;
        all_live(&system, carts, &format!("after a repeat of a try that died at {death}")).await?;
        processor.terminate(DEADLINE).await?;
    }

    let (carts, mut processor) = parked_and_repaired(&mut system).await?;
    let retry = |by| [&RETRY[..], &["--by", by]].concat();
    let (ann, bob) = (retry("ann"), retry("bob"));
    let (ann, bob) = tokio::try_join!(
        system.installation.cartctl(&ann, &[], DEADLINE),
        system.installation.cartctl(&bob, &[], DEADLINE)
    )?;
    for ended in [ann, bob] {
        ended.with(0, " live, 0 still parked").context("two tries at once")?;
    }
    all_live(&system, carts, "after two tries at once").await?;
    processor.terminate(DEADLINE).await?;
    the_exit_code_says_what_became_of_a_try(&mut system).await?.terminate(DEADLINE).await?;
    system.installation.remove().await
}
