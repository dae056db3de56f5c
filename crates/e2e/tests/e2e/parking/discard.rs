//! A command that no version will decide is discarded: it is one dead letter, and what waits behind it is decided, also after a crash
//! and when the journal is restored. A discard that is killed is done by its repeat. Of two at once one may be refused.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use e2e::harness::Process;
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

    /// All commands are decided but those that are discarded, each of which is one dead letter. Returns the names in these letters.
    async fn have_discarded(&self, commands: &[Value], when: &str) -> anyhow::Result<Vec<String>> {
        let report = self.clean(when).await?;
        let discarded: BTreeSet<String> = report.discarded.iter().map(|one| one.command_id.to_string()).collect();
        let expected: BTreeSet<String> =
            commands.iter().map(|one| id(one).map(str::to_owned)).collect::<Result<_, _>>()?;
        ensure!(discarded == expected, "{when}: not {expected:?}:\n{report}");
        let counts = &report.counts;
        ensure!(counts.discarded == commands.len() as u64 && counts.parked == 0, "{when}:\n{report}");
        let letters =
            self.cartctl(&["tail", "cart-commands-dead-letter", "--from", "beginning", "--until-end"]).await?;
        let names = letters.split("discarded by ").skip(1).filter_map(|letter| letter.split_once(": it panics"));
        let names: Vec<String> = names.map(|(name, _)| name.to_owned()).collect();
        ensure!(names.len() == commands.len(), "{when}: {letters}");
        let rehearsed = self.cartctl(&["rehearse"]).await?;
        ensure!(rehearsed.contains("no differences"), "{when}: {rehearsed}");
        Ok(names)
    }

    /// As [`System::have_discarded`], of one command, by `ops`.
    async fn has_discarded(&self, command: &Value, when: &str) -> anyhow::Result<()> {
        let names = self.have_discarded(std::slice::from_ref(command), when).await?;
        ensure!(names == ["ops"], "{when}: {names:?}");
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

/// A parked cart with its first waiting command and the one behind it.
struct Stuck {
    cart: Uuid,
    panics: Value,
    adds: Value,
}

impl System {
    /// Parks a cart at its first command, for which the cart-processor panics that is returned too.
    async fn stuck(&mut self) -> anyhow::Result<(Stuck, Process)> {
        let carts = self.carts(2);
        let [cart, other] = carts[..] else { bail!("two carts") };
        let panics = self.append(cart, "", "panics", &self.item(Uuid::new_v4())).await?;
        let adds = self.append(cart, "", "adds", &self.item(Uuid::new_v4())).await?;
        let processor = self.processor(&format!("decide-panics-at=return({})", id(&panics)?)).await?;
        self.added(other).await?;
        self.installation.becomes_parked(cart, DEADLINE).await?;
        Ok((Stuck { cart, panics, adds }, processor))
    }

    /// The first command is discarded, and the one behind it is accepted.
    async fn has_gone_on(&self, Stuck { cart, panics, adds }: &Stuck, when: &str) -> anyhow::Result<()> {
        let asked = self.status(*cart, panics).await?;
        let problem = asked["problem"]["type"].as_str().unwrap_or_default();
        ensure!(problem == "urn:cart:problem:command-discarded", "{when}: {asked}");
        let asked = self.status(*cart, adds).await?;
        ensure!(asked["status"] == "accepted", "{when}: {asked}");
        Ok(())
    }
}

/// Where a discard dies, and whether it is recorded then: around its record, then around the request of another try.
const DEATHS: [(&str, bool); 4] = [
    ("control-before-record=return", false),
    ("control-after-record=return", true),
    ("retry-before-request=return", true),
    ("retry-after-requests=return", true),
];

pub(crate) async fn a_killed_discard_is_done_by_its_repeat() -> anyhow::Result<()> {
    let mut system = System::start("discard_killed").await?;
    let mut discarded = Vec::new();
    for (death, is_recorded) in DEATHS {
        let (stuck, mut processor) = system.stuck().await?;
        let (cart, command) = (stuck.cart.to_string(), id(&stuck.panics)?.to_owned());
        let discard = ["parked", "discard", &cart, "--command", &command, "--by", "ops", "--reason", "it panics"];
        system.installation.cartctl_dies(&discard, death, DEADLINE).await?;
        let skipped = system.cartctl(&["skipped"]).await?;
        ensure!(skipped.contains(&command) == is_recorded, "after a kill at {death}: {skipped}");

        let text = system.discard(stuck.cart, &stuck.panics).await?;
        let words = if is_recorded { "was discarded before; cart" } else { "was discarded; cart" };
        ensure!(text.contains(words), "a repeat after a kill at {death}: {text}");
        let when = format!("after a repeat of a discard that died at {death}");
        system.has_gone_on(&stuck, &when).await?;
        let log = system.cartctl(&["log"]).await?;
        ensure!(log.matches(&command).count() == 1, "{when}: {log}");
        discarded.push(stuck.panics);
        let names = system.have_discarded(&discarded, &when).await?;
        ensure!(names.iter().all(|name| name == "ops"), "{when}: {names:?}");
        processor.terminate(DEADLINE).await?;
    }
    system.installation.remove().await
}

/// How often two operators begin at once. Each time another one may come first.
const ROUNDS: usize = 3;

/// Each finds the command discarded, or is refused since the cart is being tried, or is live.
pub(crate) async fn of_two_discards_at_once_there_is_one_dead_letter() -> anyhow::Result<()> {
    let mut system = System::start("discard_twice").await?;
    let mut discarded = Vec::new();
    for round in 1..=ROUNDS {
        let (stuck, mut processor) = system.stuck().await?;
        let (cart, command) = (stuck.cart.to_string(), id(&stuck.panics)?.to_owned());
        let discard = ["parked", "discard", &cart, "--command", &command, "--reason", "it panics", "--wait-s", "60"];
        let by = |name| [&discard[..], &["--by", name]].concat();
        let (ann, bob) = (by("ann"), by("bob"));
        let (ann, bob) = tokio::try_join!(
            system.installation.cartctl(&ann, &[], DEADLINE),
            system.installation.cartctl(&bob, &[], DEADLINE)
        )?;
        let mut done = 0;
        for ended in [ann, bob] {
            if ended.code == Some(0) {
                ended.with(0, "has gone on behind it")?;
                done += 1;
            } else {
                ended.with(1, "refused: cart ")?;
            }
        }
        ensure!(done > 0, "no run has discarded the command in round {round}");
        let when = format!("after two discards at once, round {round}");
        system.has_gone_on(&stuck, &when).await?;
        discarded.push(stuck.panics);
        let names = system.have_discarded(&discarded, &when).await?;
        ensure!(names.iter().all(|name| ["ann", "bob"].contains(&name.as_str())), "{when}: {names:?}");
        processor.terminate(DEADLINE).await?;
    }
    system.installation.remove().await
}
