//! A command that no version will decide is discarded: it is one dead letter, and what waits behind it is decided, also after a crash
//! and when the journal is restored.

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{DEADLINE, System};

impl System {
    /// Appends a command without waiting for its outcome: no processor runs.
    async fn append(&self, cart: Uuid, path: &str, key: &str, body: &Value) -> anyhow::Result<Value> {
        let request = reqwest::Client::new().post(format!("{}/cart/{cart}{path}", self.url)).json(body);
        let request = request.header("idempotency-key", key).header("prefer", "respond-async");
        let response = request.send().await?;
        let (status, answer): (u16, Value) = (response.status().as_u16(), response.json().await?);
        ensure!(status == 202, "{status}: {answer}");
        Ok(answer)
    }

    fn item(&self, product: Uuid) -> Value {
        json!({"productId": product, "vendorId": self.vendor, "name": "mug", "price": "2", "quantity": 1})
    }

    async fn discard(&self, cart: Uuid, command: &Value) -> anyhow::Result<String> {
        self.discard_within("60", cart, command).await
    }

    async fn discard_within(&self, wait_s: &str, cart: Uuid, command: &Value) -> anyhow::Result<String> {
        let (cart, command) = (cart.to_string(), id(command)?.to_owned());
        let args = ["parked", "discard", &cart, "--command", &command, "--by", "ops", "--reason", "it panics"];
        self.cartctl(&[&args[..], &["--wait-s", wait_s]].concat()).await
    }

    async fn refuses(&self, cart: Uuid, command: &Value, why: &str) -> anyhow::Result<()> {
        match self.discard(cart, command).await {
            Ok(text) => bail!("it was not refused: {text}"),
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(text.contains(why), "{text}");
                Ok(())
            }
        }
    }

    /// All commands of the cart are decided but the one that is discarded, which is one dead letter.
    async fn has_discarded(&self, command: &Value, when: &str) -> anyhow::Result<()> {
        let report = self.clean(when).await?;
        ensure!(report.counts.discarded == 1 && report.counts.parked == 0, "{when}:\n{report}");
        let [discarded] = &report.discarded[..] else { bail!("{when}:\n{report}") };
        ensure!(discarded.command_id.to_string() == id(command)? && discarded.by == "ops", "{when}:\n{report}");
        let letters =
            self.cartctl(&["tail", "cart-commands-dead-letter", "--from", "beginning", "--until-end"]).await?;
        ensure!(letters.matches("discarded by ops: it panics").count() == 1, "{when}: {letters}");
        let rehearsed = self.cartctl(&["rehearse"]).await?;
        ensure!(rehearsed.contains("no differences"), "{when}: {rehearsed}");
        Ok(())
    }
}

fn id(command: &Value) -> anyhow::Result<&str> {
    command["commandId"].as_str().context("a command has an id")
}

pub(crate) async fn a_discarded_command_is_one_dead_letter_and_those_behind_it_are_decided() -> anyhow::Result<()> {
    let mut system = System::start("discard").await?;
    let carts = system.carts(2);
    let [bad, other] = carts[..] else { bail!("two carts") };
    let mut processor = system.processor("").await?;
    let (known, new) = (Uuid::new_v4(), Uuid::new_v4());
    let (status, decided) = system.add(bad, known).await?;
    ensure!(status == 200, "{decided}");
    processor.terminate(DEADLINE).await?;
    // It would be rejected, and leave a row: a decision of it would show.
    let panics = system.append(bad, "", "panics", &system.item(known)).await?;
    let adds = system.append(bad, "", "adds", &system.item(new)).await?;
    let buys = system.append(bad, "/checkout", "buys", &json!({})).await?;

    let fail_point = format!("decide-panics-at=return({})", id(&panics)?);
    let mut processor = system.processor(&fail_point).await?;
    system.added(other).await?;
    system.installation.becomes_parked(bad, DEADLINE).await?;
    system.refuses(other, &panics, "is not parked").await?;
    system.refuses(bad, &decided, "does not wait: it was decided").await?;
    system.refuses(bad, &adds, "the cart stands at command").await?;
    let shown = system.cartctl(&["parked", "show", &bad.to_string()]).await?;
    ensure!(shown.contains("rule-panicked") && shown.contains(id(&panics)?), "{shown}");

    // The process dies behind the journal write of the try that comes to the discarded command, before its transaction. No thread follows
    // the control topic in the background: each try has read it to its end.
    processor.kill9()?;
    let unfollowed = format!("{fail_point};control-unfollowed=return");
    let mut dies = system.processor(&format!("{unfollowed};parking-after-journal=return")).await?;
    let text = system.discard_within("0", bad, &panics).await?;
    ensure!(text.contains("was recorded; cart"), "{text}");
    ensure!(!dies.ended(DEADLINE).await?.success(), "the processor was to crash in the try");
    let mut processor = system.processor(&unfollowed).await?;
    let text = system.discard(bad, &panics).await?;
    ensure!(text.contains("was discarded before; cart"), "{text}");
    let asked = system.status(bad, &panics).await?;
    let problem = asked["problem"]["type"].as_str().unwrap_or_default();
    ensure!(asked["status"] == "rejected" && problem == "urn:cart:problem:command-discarded", "{asked}");
    let asked = system.status(bad, &adds).await?;
    ensure!(asked["status"] == "accepted", "{asked}");
    let asked = system.status(bad, &buys).await?;
    ensure!(asked["status"] == "accepted" && asked["outcome"]["total"] == "4", "{asked}");
    system.has_discarded(&panics, "discarded").await?;
    let text = system.discard(bad, &panics).await?;
    ensure!(text.contains("was discarded before"), "{text}");
    for verb in ["skipped", "log", "status"] {
        let text = system.cartctl(&[verb]).await?;
        ensure!(text.contains(id(&panics)?), "{verb}: {text}");
    }

    processor.kill9()?;
    let mut processor = system.processor("").await?;
    system.added(bad).await?;
    system.has_discarded(&panics, "after a crash").await?;
    processor.terminate(DEADLINE).await?;
    let session = cassandra::connect(&system.installation.cassandra().patient()).await?;
    for table in ["cart_journal", "cart_unchanged"] {
        session.query_unpaged(format!("TRUNCATE {table}"), ()).await?;
    }
    system.cartctl(&["restore-journal"]).await?;
    let _processor = system.processor("").await?;
    system.added(bad).await?;
    system.has_discarded(&panics, "after the journal was restored").await?;
    system.installation.remove().await
}
