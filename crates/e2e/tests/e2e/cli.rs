//! The binaries `cart` and `replay` against a real ingest and a real processor: single commands, scripts, an import that ends
//! at an invalid line, and unavailable services.

use std::io::Write as _;
use std::path::Path;
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

/// The result of a run of the binary.
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
        run(command, script.to_owned()).await
    }

    /// Imports a file under a run id, and also returns the report.
    async fn import(&self, file: &Path, words: &[&str]) -> anyhow::Result<(Run, Value)> {
        let mut command = Command::new(binary("replay")?);
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.args(["--url", &self.url, "--no-send-time", "--run-id", "import", "--json", "-", "--file"]);
        command.arg(file).args(words);
        let run = run(command, String::new()).await?;
        let report = serde_json::from_str(&run.out).with_context(|| format!("{run:?}"))?;
        Ok((run, report))
    }

    /// One command, its exit code and its JSON.
    async fn json(&self, words: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
        let run = self.script(&[words, &["--json"]].concat(), "").await?;
        let json = serde_json::from_str(&run.out).with_context(|| format!("{words:?}: {run:?}"))?;
        Ok((run.exit_code, json))
    }
}

async fn run(mut command: Command, input: String) -> anyhow::Result<Run> {
    let run = move || -> anyhow::Result<Run> {
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let mut stdin = child.stdin.take().context("it has a standard input")?;
        // A single command does not read it.
        stdin.write_all(input.as_bytes()).unwrap_or_default();
        drop(stdin);
        let output = child.wait_with_output().with_context(|| format!("waiting for {command:?}"))?;
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        Ok(Run { exit_code: output.status.code(), out, err })
    };
    tokio::task::spawn_blocking(run).await?
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
    scripts_of_other_systems(&alice).await?;
    imports(&alice, installation.folder()).await?;
    watches(&alice, &installation).await?;

    // Without a processor the command is in the log, and a repeat with its key gets the outcome later.
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

    // Without an ingest the command is not executed.
    processes[1].kill9()?;
    let (exit_code, away) = alice.json(&["checkout"]).await?;
    assert_eq!((exit_code, &away["type"]), (Some(3), &kind("unavailable")), "{away}");
    drop(processes);
    installation.remove().await
}

/// The bodies are exactly the service's.
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

    let (exit_code, refused) = alice.json(&["add", "red mug", "--price", "1"]).await?;
    assert_eq!((exit_code, &refused["type"]), (Some(1), &kind("item-already-in-cart")), "{refused}");
    let (exit_code, refused) = alice.json(&["adjust", "red mug", "-2"]).await?;
    assert_eq!((exit_code, &refused["type"]), (Some(1), &kind("negative-quantity")), "{refused}");
    let (exit_code, refused) = alice.json(&["remove", "blue mug"]).await?;
    assert_eq!((exit_code, &refused["type"]), (Some(1), &kind("item-not-in-cart")), "{refused}");
    let long_name = "x".repeat(201);
    let (exit_code, refused) = alice.json(&["add", &long_name, "--price", "1"]).await?;
    assert_eq!((exit_code, &refused["type"]), (Some(2), &kind("invalid-field")), "{refused}");
    // A command that the service would reject is not sent.
    for words in [&["add", "pin"][..], &["add", "pin", "-p", "0.00001"], &["add", "pin", "-p", "1_000"]] {
        let run = alice.script(words, "").await?;
        assert!(run.exit_code == Some(2) && run.out.is_empty() && run.err.contains("--price"), "{run:?}");
    }
    let (exit_code, adjusted) = alice.json(&["adjust", "red mug", "+3"]).await?;
    assert_eq!((exit_code, &adjusted["item"]["quantity"]), (Some(0), &json!(5)), "{adjusted}");

    let (exit_code, added) = alice.json(&["add", "pin", "--price", "0"]).await?;
    let (_, removed) = alice.json(&["remove", "PIN"]).await?;
    assert_eq!((exit_code, &removed["item"]), (Some(0), &added["item"]), "{removed}");
    let (exit_code, other) = alice.json(&["change-member", "bob"]).await?;
    assert_eq!((exit_code, &other["member"]), (Some(0), &json!("bob")), "{other}");
    assert_ne!(other["cartId"], ids["cartId"]);
    assert_eq!(alice.json(&["history"]).await?, (Some(0), json!([])), "one command has none before it");
    let help = alice.script(&["help"], "").await?;
    for command in
        ["change-member", "current-member", "add", "remove", "list", "adjust", "checkout", "watch", "history", "exit"]
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

    // The first failure ends the script with its exit code; the rest is not executed.
    let script = "change-member bob\nremove kettle\nadd kettle -p 1\n";
    let run = alice.script(&[], script).await?;
    assert!(run.exit_code == Some(1) && run.err.starts_with("line 2: rejected (item-not-in-cart)"), "{run:?}");
    let run = alice.script(&["--keep-going"], script).await?;
    assert!(run.exit_code == Some(1) && run.out.contains("added 1 of kettle"), "{run:?}");
    assert!(!run.out.contains('\u{1b}'), "no colours for a pipe: {run:?}");
    // That was bob's.
    assert_eq!(alice.json(&["list"]).await?.1["items"], json!([]));
    Ok(())
}

/// Line ends, a byte order mark and the composition of letters do not change names.
async fn scripts_of_other_systems(alice: &User) -> anyhow::Result<()> {
    let script = "\u{feff}change-member Jose\u{301}\r\nadd 'cafe\u{301}' --price 2 --vendor acme\r\nlist\r\n";
    let run = alice.script(&["--json"], script).await?;
    assert_eq!((run.exit_code, run.err.as_str()), (Some(0), ""), "{run:?}");
    let script = "change-member Jos\u{e9}\nadjust 'caf\u{e9}' 1\nlist\n";
    let run = alice.script(&["--json"], script).await?;
    let lines: Vec<Value> = run.out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let expected = json!([{
        // UUIDv5 of urn:cart:product:café and urn:cart:vendor:acme, composed.
        "productId": "6fb0ade7-ad22-5653-884c-cdb12f3d0623", "vendorId": "9cb86ce4-54cf-5789-a86b-2aeb840de856",
        "name": "caf\u{e9}", "price": "2", "quantity": 2,
    }]);
    assert_eq!(lines.get(2).map(|list| &list["items"]), Some(&expected), "{run:?}");
    Ok(())
}

/// Each event of a cart is printed: those that it has, and new ones.
async fn watches(alice: &User, installation: &Installation) -> anyhow::Result<()> {
    let carol = User { member: "carol", ..alice.clone() };
    assert_eq!(carol.json(&["add", "kettle", "--price", "20"]).await?.0, Some(0));
    let args = ["--url", &alice.url, "--member", "carol", "watch", "--json"];
    let watch = installation.spawn("watch", "cart", args)?;
    let shows = async |kinds: &[&str]| {
        wait_until(&format!("{kinds:?} to be shown"), DEADLINE, async || {
            let text = watch.log();
            let shown: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
            let is_all = shown.is_ok_and(|lines| lines.iter().map(|line| &line["type"]).eq(kinds));
            if is_all { Ok(()) } else { Err(text) }
        })
        .await
    };
    shows(&["ItemAdded"]).await?;
    assert_eq!(carol.json(&["adjust", "kettle", "+1"]).await?.0, Some(0));
    assert_eq!(carol.json(&["checkout"]).await?.0, Some(0));
    shows(&["ItemAdded", "ItemQuantityIncreased", "ItemPurchased"]).await
}

/// An invalid line ends an import. The lines before it are executed, and the rest once it is corrected.
async fn imports(alice: &User, folder: &Path) -> anyhow::Result<()> {
    let file = folder.join("import.csv");
    let text = |price: &str| {
        let add = |product: &str, price: &str| {
            format!("2026-01-01T00:00:00Z,importer,add,{product},V,{product},{price},1\r\n")
        };
        let header = "\u{feff}time,member,action,product,vendor,name,price,quantity\r\n";
        [header, &add("A", "1"), &add("B", "1"), &add("C", price), &add("D", "1")].concat()
    };
    std::fs::write(&file, text("1_000"))?;
    let (run, report) = alice.import(&file, &[]).await?;
    assert_eq!((run.exit_code, &report["accepted"]), (Some(1), &json!(2)), "{run:?}");
    let unfinished = &report["unfinished"];
    assert_eq!((&unfinished["line"], &unfinished["answered_after"]), (&json!(4), &json!(0)), "{run:?}");
    assert_eq!(unfinished["options"], "--run-id import --from-line 4");
    assert!(run.err.contains("not sent: line 4 and all lines after it"), "{run:?}");
    assert!(run.err.contains("line 4: price \"1_000\""), "{run:?}");

    std::fs::write(&file, text("1000"))?;
    let (run, report) = alice.import(&file, &["--from-line", "4"]).await?;
    assert_eq!((run.exit_code, &report["accepted"]), (Some(0), &json!(2)), "{run:?}");
    let importer = User { member: "importer", ..alice.clone() };
    let list = importer.json(&["list"]).await?;
    assert_eq!((&list.1["version"], &list.1["total"]), (&json!(4), &json!("1003")), "{list:?}");
    // A repeat of all of it changes nothing.
    let (run, report) = alice.import(&file, &[]).await?;
    assert_eq!((run.exit_code, &report["accepted"]), (Some(0), &json!(4)), "{run:?}");
    assert_eq!(importer.json(&["list"]).await?, list);
    Ok(())
}
