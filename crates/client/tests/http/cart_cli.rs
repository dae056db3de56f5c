//! The binary `cart` as a shell sees it: what it sends, writes and ends with.

use std::collections::HashSet;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::service::{Behaviour, Service};

/// What a run of the binary gave.
#[derive(Debug)]
struct Run {
    exit_code: i32,
    out: String,
    err: String,
}

impl Run {
    /// Each line of standard output, as JSON.
    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:?}"))).collect()
    }

    fn only_json(&self) -> Value {
        let [one] = &self.json()[..] else { panic!("not one line: {self:?}") };
        one.clone()
    }
}

async fn cart(service: &Service, words: &[&str], script: &str) -> Run {
    // Time enough for a busy machine, little enough for the tests that use it up.
    run(&[&["--url", &service.url, "--timeout-ms", "3000", "--member", "alice"], words].concat(), script).await
}

async fn run(words: &[&str], script: &str) -> Run {
    let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    let script = script.to_owned();
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cart"));
        command.args(words).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        // A single command does not read it.
        child.stdin.take().expect("a pipe").write_all(script.as_bytes()).unwrap_or_default();
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Run { exit_code: output.status.code().expect("no signal"), out: text(output.stdout), err: text(output.stderr) }
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

#[tokio::test]
async fn a_command_whose_answer_is_lost_is_sent_again_with_its_key() {
    let service = Service::start(|call| match call.number {
        0 => Behaviour::ExecuteAndDrop,
        1 => Behaviour::Unavailable,
        2 => Behaviour::ExecuteAndSayPending,
        _ => Behaviour::Answer,
    })
    .await;
    let run = cart(&service, &["add", "red mug", "--price", "3.50", "--json"], "").await;
    assert_eq!((run.exit_code, &run.only_json()["version"]), (0, &1.into()), "{run:?}");
    assert_eq!(cart(&service, &["add", "kettle"], "").await.exit_code, 0);
    let state = service.state();
    let keys: Vec<_> = state.calls.iter().map(|call| call.key.clone().expect("a key")).collect();
    assert_eq!(keys.len(), 5);
    assert!(keys[..4].iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_ne!(keys[4], keys[0], "another command has another key");
    let carts: HashSet<_> = state.calls.iter().map(|call| call.cart.as_str()).collect();
    assert_eq!(carts, HashSet::from(["e4fbfd75-c6ab-52e9-b751-9da31e2bc37b"]), "UUIDv5 of urn:cart:member:alice");
}

#[tokio::test]
async fn exit_codes_say_why_there_is_no_success() {
    let unavailable = Service::start(|_| Behaviour::Unavailable).await;
    let pending = Service::start(|_| Behaviour::ExecuteAndSayPending).await;
    let lost = Service::start(|_| Behaviour::ExecuteAndDrop).await;
    let answer = Service::start(|_| Behaviour::Answer).await;
    let key = ["checkout", "--json", "--idempotency-key", "key-1"];
    let (unavailable, pending, lost, refused) = tokio::join!(
        cart(&unavailable, &["checkout", "--json"], ""),
        cart(&pending, &key, ""),
        cart(&lost, &key, ""),
        cart(&answer, &["checkout", "--json"], ""),
    );
    let kind = |run: &Run| run.only_json()["type"].clone();
    assert_eq!((refused.exit_code, kind(&refused)), (1, "urn:cart:problem:empty-cart-checkout".into()));
    assert_eq!((unavailable.exit_code, kind(&unavailable)), (3, "urn:cart:problem:unavailable".into()));
    assert_eq!((pending.exit_code, pending.only_json()["status"].clone()), (4, "pending".into()));
    assert_eq!((lost.exit_code, kind(&lost)), (4, "urn:cart:problem:outcome-unknown".into()));
    for run in [&pending, &lost] {
        assert_eq!(run.only_json()["idempotencyKey"], "key-1");
    }
    let all = [&refused, &unavailable, &pending, &lost];
    assert!(all.iter().all(|run| run.err.is_empty()), "JSON says it all: {all:?}");

    let away = run(&["--url", "http://127.0.0.1:1", "-m", "alice", "--timeout-ms", "300", "list"], "").await;
    assert_eq!((away.exit_code, away.out.as_str()), (3, ""), "{away:?}");
    assert!(away.err.contains("not done: the service is away"), "{away:?}");
}

#[tokio::test]
async fn what_can_not_be_understood_is_not_sent() {
    let service = Service::start(|_| Behaviour::Answer).await;
    for words in [
        &["frobnicate"][..],
        &["add"],
        &["add", "mug", "--price", "3,50"],
        &["adjust", "mug"],
        &["list", "--url", "ftp://127.0.0.1"],
        &["list", "--member", ""],
    ] {
        let run = cart(&service, words, "").await;
        assert_eq!((run.exit_code, run.out.as_str(), run.err.is_empty()), (2, "", false), "{words:?}: {run:?}");
    }
    let nobody = run(&["--url", &service.url, "list"], "").await;
    assert!(nobody.exit_code == 2 && nobody.err.contains("--member"), "{nobody:?}");
    assert_eq!(service.state().calls.len(), 0);
    // What the service alone can judge is sent, and its answer told.
    let body = r#"{"type":"urn:cart:problem:invalid-field","title":"t","status":422,"detail":"4 places"}"#;
    let strict = Service::start(move |_| Behaviour::Say(422, "application/problem+json", body.to_owned())).await;
    let run = cart(&strict, &["add", "mug", "--price", "0.00001"], "").await;
    assert_eq!((run.exit_code, run.err.as_str()), (2, "refused (invalid-field): 4 places\n"), "{run:?}");
}

#[tokio::test]
async fn items_are_found_by_name_product_or_id() {
    let service = Service::start(|_| Behaviour::Answer).await;
    let script = "add 'red mug' --price 3.50 --quantity 2 --product 85123A --vendor 851\nadd KETTLE\n\
                  adjust 85123A +3\nadjust kettle 1\nadjust 8c126bcf-f775-5898-bc4f-457befa0c02d -1\nremove 'red mug'\n";
    let run = cart(&service, &["--json"], script).await;
    assert_eq!((run.exit_code, run.err.as_str()), (0, ""), "{run:?}");
    let items: Vec<_> = run.json().into_iter().map(|mut line| line["item"].take()).collect();
    let quantities: Vec<_> = items.iter().map(|item| item["quantity"].as_i64().expect("a quantity")).collect();
    assert_eq!(quantities, [2, 1, 5, 2, 4, 4]);
    // The ids of the data set for these labels.
    assert_eq!(items[0]["productId"], "8c126bcf-f775-5898-bc4f-457befa0c02d");
    assert_eq!(items[0]["vendorId"], "05f2dc43-27f3-542f-bdcb-58c02d91639c");
    assert_eq!(items[0]["price"], "3.50");

    let unknown = cart(&service, &["remove", "ketle"], "").await;
    assert_eq!((unknown.exit_code, unknown.out.as_str()), (1, ""), "{unknown:?}");
    assert!(unknown.err.contains("near: \"KETTLE\""), "{unknown:?}");
    cart(&service, &["add", "KETTLE", "--product", "another"], "").await;
    let ambiguous = cart(&service, &["remove", "kettle"], "").await;
    assert_eq!(ambiguous.exit_code, 2, "{ambiguous:?}");
    assert_eq!(ambiguous.err.lines().count(), 3, "a line for each: {ambiguous:?}");
}

#[tokio::test]
async fn a_script_ends_at_its_first_failure_unless_it_is_to_go_on() {
    let service = Service::start(|_| Behaviour::Answer).await;
    let script = "# a comment\n\nadd mug\nadd mug\nfrobnicate\nlist --json\nexit\nadd lamp\n";
    let run = cart(&service, &[], script).await;
    assert_eq!((run.exit_code, run.out.as_str()), (1, "added 1 of mug at 0.00\n"), "{run:?}");
    assert!(run.err.starts_with("line 4: refused (item-already-in-cart)"), "{run:?}");
    assert_eq!(service.state().calls.len(), 2);

    let run = cart(&service, &["--keep-going"], &script.replace("mug", "jug")).await;
    assert_eq!(run.exit_code, 1, "the first failure's: {run:?}");
    assert!(run.err.contains("line 5: ") && run.out.contains("\"items\":["), "{run:?}");
    assert!(!run.out.contains("lamp"), "nothing is done after exit: {run:?}");

    let history = cart(&service, &["--json"], "list\nchange-member bob\nadd x\nhistory").await;
    let [.., history] = &history.json()[..] else { panic!("{history:?}") };
    let outcomes: Vec<_> = history.as_array().expect("a list").iter().map(|entry| entry["outcome"].clone()).collect();
    assert_eq!(outcomes, ["done", "done", "done"]);
    assert_eq!(history[2]["command"], "add x");
    assert!(!run.out.contains('\u{1b}') && !run.err.contains('\u{1b}'), "no colours for a pipe");
}
