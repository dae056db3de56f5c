//! A command without a known outcome is never appended after the client's next command.

use e2e::harness::{Installation, Service};
use reqwest::Method;

use super::api::{Api, DEADLINE, PATIENT, PROCESSOR, item};

pub(crate) async fn a_command_that_could_not_be_sent_in_time_is_not_sent_later() -> anyhow::Result<()> {
    let installation = Installation::new("late")?;
    installation.setup().await?;
    let mut processes = installation.start_all(&[PROCESSOR, (Service::Ingest, "other", &PATIENT)]).await?;
    // Its first command is held for longer than the delivery timeout.
    let args = ["--reply-timeout-ms", "3000"];
    let mut slow =
        installation.start_at(Service::Ingest, "slow", &args, None, Some("batch-before-send=1*sleep(6000)"))?;
    slow.ready(DEADLINE).await?;
    let (slow_api, other) = (Api::new(&slow), Api::new(&processes[1]));
    let cart = other.cart();
    cart.add(1, 1).await?.done();

    let key: &[(&str, &str)] = &[("idempotency-key", "again")];
    let body = || Some(item(1, 2).to_string());
    let unknown = cart.through(&slow_api).send(Method::POST, "", key, body()).await?;
    assert!(unknown.unlike_problem(504, "outcome-unknown", "retry with the same").is_none(), "{unknown:?}");
    // A retry through another ingest is rejected, and the client sends its next command.
    cart.send(Method::POST, "", key, body()).await?.rejected(409, "item-already-in-cart", "");
    cart.remove(1).await?.done();
    // A later command of the slow ingest's queue shows that the held one was processed.
    wait_for_turn(&cart.through(&slow_api)).await?;
    assert_eq!(cart.get().await?["items"].as_array().map(Vec::len), Some(1), "{:?}", cart.get().await?);
    assert_eq!(cart.get().await?["items"][0]["productId"], item(2, 1)["productId"]);

    processes.push(slow);
    for mut process in processes {
        process.terminate(DEADLINE).await?;
    }
    installation.remove().await
}

async fn wait_for_turn(cart: &super::api::Cart) -> anyhow::Result<()> {
    e2e::harness::wait_until("the batch to be sent", DEADLINE, async || match cart.add(2, 1).await {
        Ok(answer) if answer.status == 200 || answer.status == 409 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
}
