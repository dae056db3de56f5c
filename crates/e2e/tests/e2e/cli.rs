//! The binary `cart` against a real ingest and a real processor: single commands, a script, and services that are away.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use e2e::harness::{Installation, Process, Service, binary, wait_until};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(180);

/// One user of an ingest.
#[derive(Clone)]
struct User {
    url: String,
    member: &'static str,
    timeout_ms: &'static str,
}

/// What a run of the binary gave.
#[derive(Debug)]
struct Run {
    exit_code: Option<i32>,
    out: String,
    err: String,
}

impl User {
    fn of(ingest: &Process, member: &'static str) -> Self {
        let url = format!("http://{}", ingest.address().expect("ingest has an address"));
        Self { url, member, timeout_ms: "60000" }
    }

    /// Runs the binary with a script on its standard input.
    async fn script(&self, words: &[&str], script: &str) -> anyhow::Result<Run> {
        let mut command = Command::new(binary("cart")?);
        command.args(words).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs([("CART_URL", self.url.as_str()), ("CART_TIMEOUT_MS", self.timeout_ms)]);
        command.env("CART_MEMBER", self.member);
        let script = script.to_owned();
        let run = move || -> anyhow::Result<Run> {
            let mut child = command.spawn().context("starting cart")?;
            let mut stdin = child.stdin.take().context("it has a standard input")?;
            // A single command does not read it.
            stdin.write_all(script.as_bytes()).unwrap_or_default();
            drop(stdin);
            let output = child.wait_with_output().context("waiting for cart")?;
            let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
            Ok(Run { exit_code: output.status.code(), out, err })
        };
        tokio::task::spawn_blocking(run).await?
    }

    /// One command, its exit code and its JSON.
    async fn json(&self, words: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
        let run = self.script(&[words, &["--json"]].concat(), "").await?;
        let json = serde_json::from_str(&run.out).with_context(|| format!("{words:?}: {run:?}"))?;
        Ok((run.exit_code, json))
    }
}

fn kind(slug: &str) -> Value {
    json!(format!("urn:cart:problem:{slug}"))
}

pub(crate) async fn a_cart_is_filled_and_bought_from_the_command_line() -> anyhow::Result<()> {
    let installation = Installation::new("cli")?;
    installation.setup().await?;
    let processor = (Service::CartProcessor, "a", &["--session-timeout-ms", "2000"][..]);
    let mut processes =
        installation.start_all(&[processor, (Service::Ingest, "a", &["--reply-timeout-ms", "1000"])]).await?;
    let alice = User::of(&processes[1], "alice");

    single_commands(&alice).await?;
    scripts(&alice).await?;

    // Nobody decides: the command is in the log, and whoever asks again with its key is told what became of it.
    processes[0].kill9()?;
    let hasty = User { timeout_ms: "6000", ..alice.clone() };
    let late = ["add", "lamp", "--price", "20", "--idempotency-key", "late"];
    let (exit_code, pending) = hasty.json(&late).await?;
    assert_eq!(exit_code, Some(4), "{pending}");
    assert_eq!((&pending["status"], &pending["idempotencyKey"]), (&json!("pending"), &json!("late")), "{pending}");
    processes[0] = installation.start_all(&[processor]).await?.remove(0);
    let settled = wait_until("the late command's outcome", DEADLINE, async || {
        let (exit_code, body) = alice.json(&late).await.map_err(|error| format!("{error:#}"))?;
        if exit_code == Some(0) { Ok(body) } else { Err(body.to_string()) }
    });
    assert_eq!(settled.await?["commandId"], pending["commandId"]);
    assert_eq!(alice.json(&["list"]).await?.1["items"].as_array().map(Vec::len), Some(1));

    // Nobody listens: not done, and it will not be.
    processes[1].kill9()?;
    let (exit_code, away) = alice.json(&["checkout"]).await?;
    assert_eq!((exit_code, &away["type"]), (Some(3), &kind("unavailable")), "{away}");
    drop(processes);
    installation.remove().await
}

/// The bodies are those of the service, to the letter.
async fn single_commands(alice: &User) -> anyhow::Result<()> {
    let ids = alice.json(&["current-member"]).await?.1;
    let http = reqwest::Client::new();
    let cart_url = format!("{}/cart/{}", alice.url, ids["cartId"].as_str().context("an id")?);
    let shown = async || -> anyhow::Result<String> { Ok(http.get(&cart_url).send().await?.text().await?) };

    let (exit_code, added) = alice.json(&["add", "red mug", "--price", "3.50", "--quantity", "2"]).await?;
    assert_eq!((exit_code, &added["version"], &added["cartId"]), (Some(0), &json!(1), &ids["cartId"]), "{added}");
    let expected = json!({
        // UUIDv5 of urn:cart:product:red mug and urn:cart:vendor:shop.
        "productId": "6bee9ef3-0a4c-5494-890e-c4534ac1cfb1", "vendorId": "03eed10f-b373-5529-ba8a-25b42bcbe3dd",
        "name": "red mug", "price": "3.5", "quantity": 2,
    });
    assert_eq!(added["item"], expected);
    let listed = alice.script(&["list", "--json"], "").await?;
    assert_eq!(listed.out.trim_end(), shown().await?, "the very text of the service");

    let (exit_code, refused) = alice.json(&["add", "red mug"]).await?;
    assert_eq!((exit_code, &refused["type"]), (Some(1), &kind("item-already-in-cart")), "{refused}");
    let (exit_code, refused) = alice.json(&["adjust", "red mug", "-2"]).await?;
    assert_eq!((exit_code, &refused["type"]), (Some(1), &kind("negative-quantity")), "{refused}");
    let (exit_code, refused) = alice.json(&["remove", "blue mug"]).await?;
    assert_eq!((exit_code, &refused["type"]), (Some(1), &kind("item-not-in-cart")), "{refused}");
    let (exit_code, refused) = alice.json(&["add", "pin", "--price", "0.00001"]).await?;
    assert_eq!((exit_code, &refused["type"]), (Some(2), &kind("invalid-field")), "{refused}");
    let (exit_code, adjusted) = alice.json(&["adjust", "red mug", "+3"]).await?;
    assert_eq!((exit_code, &adjusted["item"]["quantity"]), (Some(0), &json!(5)), "{adjusted}");

    let (exit_code, added) = alice.json(&["add", "pin"]).await?;
    let (_, removed) = alice.json(&["remove", "PIN"]).await?;
    assert_eq!((exit_code, &removed["item"]), (Some(0), &added["item"]), "{removed}");
    let (exit_code, other) = alice.json(&["change-member", "bob"]).await?;
    assert_eq!((exit_code, &other["member"]), (Some(0), &json!("bob")), "{other}");
    assert_ne!(other["cartId"], ids["cartId"]);
    assert_eq!(alice.json(&["history"]).await?, (Some(0), json!([])), "one command has none before it");
    let help = alice.script(&["help"], "").await?;
    for command in ["change-member", "current-member", "add", "remove", "list", "adjust", "checkout", "history", "exit"]
    {
        assert!(help.exit_code == Some(0) && help.out.contains(&format!("\n  {command}")), "{command}: {help:?}");
    }
    assert_eq!(alice.script(&["exit"], "").await?.exit_code, Some(0));
    assert_eq!(alice.script(&["bye"], "").await?.exit_code, Some(2));

    let table = alice.script(&["list"], "").await?;
    assert!(table.out.contains("red mug") && table.out.contains("total 17.50"), "{table:?}");
    let (exit_code, bought) = alice.json(&["checkout"]).await?;
    assert_eq!((exit_code, &bought["total"]), (Some(0), &json!("17.5")), "{bought}");
    let (exit_code, refused) = alice.json(&["checkout"]).await?;
    assert_eq!((exit_code, &refused["type"]), (Some(1), &kind("empty-cart-checkout")), "{refused}");
    Ok(())
}

async fn scripts(alice: &User) -> anyhow::Result<()> {
    let script = "change-member bob\nadd 'red mug' --price 0.10 --quantity 3\nadd kettle -p 20 --vendor acme\n\
                  adjust 'RED MUG' +2\nlist\nremove kettle\ncheckout\nhistory\n";
    let run = alice.script(&["--json"], script).await?;
    assert_eq!((run.exit_code, run.err.as_str()), (Some(0), ""), "{run:?}");
    let lines: Vec<Value> = run.out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!((lines.len(), &lines[4]["total"], &lines[6]["total"]), (8, &json!("20.5"), &json!("0.5")), "{run:?}");
    assert!(lines[7].as_array().is_some_and(|all| all.len() == 7 && all.iter().all(|one| one["outcome"] == "done")));

    // The first failure ends it with its exit code; the rest is not done.
    let script = "change-member bob\nremove kettle\nadd kettle\n";
    let run = alice.script(&[], script).await?;
    assert!(run.exit_code == Some(1) && run.err.starts_with("line 2: refused (item-not-in-cart)"), "{run:?}");
    let run = alice.script(&["--keep-going"], script).await?;
    assert!(run.exit_code == Some(1) && run.out.contains("added 1 of kettle"), "{run:?}");
    assert!(!run.out.contains('\u{1b}'), "no colours for a pipe: {run:?}");
    // That was bob's.
    assert_eq!(alice.json(&["list"]).await?.1["items"], json!([]));
    Ok(())
}
