//! The binary `cart`: its requests, its output and its exit codes.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::service::{Behaviour, Service};

/// The result of a run of the binary.
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

async fn cart(service: &Service, words: &[&str], script: impl AsRef<[u8]>) -> Run {
    // Long enough for a busy machine, short enough for the tests that wait for it.
    run(&[&["--url", &service.url, "--timeout-ms", "3000", "--member", "alice"], words].concat(), script).await
}

async fn run(words: &[&str], script: impl AsRef<[u8]>) -> Run {
    let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    let script = script.as_ref().to_owned();
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cart"));
        command.args(words).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        // A single command does not read it.
        child.stdin.take().expect("a pipe").write_all(&script).unwrap_or_default();
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
    assert_eq!(cart(&service, &["add", "kettle", "--price", "0"], "").await.exit_code, 0);
    let state = service.state();
    let keys: Vec<_> = state.calls.iter().map(|call| call.key.clone().expect("a key")).collect();
    assert_eq!(keys.len(), 5);
    assert!(keys[..4].iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_ne!(keys[4], keys[0], "another command has another key");
    let carts: HashSet<_> = state.calls.iter().map(|call| call.cart.as_str()).collect();
    assert_eq!(carts, HashSet::from(["e4fbfd75-c6ab-52e9-b751-9da31e2bc37b"]), "UUIDv5 of urn:cart:member:alice");
}

#[tokio::test]
async fn each_failure_has_its_exit_code() {
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
    assert!(away.err.contains("not executed: the service is unavailable"), "{away:?}");
}

#[tokio::test]
async fn an_invalid_command_is_not_sent() {
    let service = Service::start(|_| Behaviour::Answer).await;
    for words in [
        &["frobnicate"][..],
        &["add"],
        &["add", "mug"],
        &["add", "mug", "--price", "3,50"],
        &["add", "mug", "--price", "1_000"],
        &["add", "mug", "--price", "0.00001"],
        &["add", "mug", "--price", "1", "--quantity", "1_000"],
        &["add", "mug", "--price", "1", "--vendor", "acme\r"],
        &["adjust", "mug"],
        &["list", "--url", "ftp://127.0.0.1"],
        &["list", "--member", ""],
    ] {
        let run = cart(&service, words, "").await;
        assert_eq!((run.exit_code, run.out.as_str(), run.err.is_empty()), (2, "", false), "{words:?}: {run:?}");
    }
    let free = cart(&service, &["add", "mug"], "").await;
    assert!(free.err.contains("--price <PRICE>") && free.err.contains("cart add mug --price 3.50"), "{free:?}");
    let without_member = run(&["--url", &service.url, "list"], "").await;
    assert!(without_member.exit_code == 2 && without_member.err.contains("--member"), "{without_member:?}");
    assert_eq!(service.state().calls.len(), 0);
    // A command that only the service can check is sent, and its answer printed.
    let body = r#"{"type":"urn:cart:problem:invalid-field","title":"t","status":422,"detail":"too many"}"#;
    let strict = Service::start(move |_| Behaviour::Say(422, "application/problem+json", body.to_owned())).await;
    let run = cart(&strict, &["add", "mug", "--price", "1", "--quantity", "2000000"], "").await;
    assert_eq!((run.exit_code, run.err.as_str()), (2, "rejected (invalid-field): too many\n"), "{run:?}");
}

#[tokio::test]
async fn items_are_found_by_name_product_or_id() {
    let service = Service::start(|_| Behaviour::Answer).await;
    let script = "add 'red mug' --price 3.50 --quantity 2 --product 85123A --vendor 851\nadd KETTLE -p 0\n\
                  adjust 85123A +3\nadjust kettle 1\nadjust 8c126bcf-f775-5898-bc4f-457befa0c02d -1\nremove 'red mug'\n";
    let run = cart(&service, &["--json"], script).await;
    assert_eq!((run.exit_code, run.err.as_str()), (0, ""), "{run:?}");
    let items: Vec<_> = run.json().into_iter().map(|mut line| line["item"].take()).collect();
    let quantities: Vec<_> = items.iter().map(|item| item["quantity"].as_i64().expect("a quantity")).collect();
    assert_eq!(quantities, [2, 1, 5, 2, 4, 4]);
    // The ids of the data set for these labels.
    assert_eq!(items[0]["productId"], "8c126bcf-f775-5898-bc4f-457befa0c02d");
    assert_eq!(items[0]["vendorId"], "05f2dc43-27f3-542f-bdcb-58c02d91639c");
    assert_eq!(items[0]["price"], "3.5");

    let unknown = cart(&service, &["remove", "ketle"], "").await;
    assert_eq!((unknown.exit_code, unknown.out.as_str()), (1, ""), "{unknown:?}");
    assert!(unknown.err.contains("near: \"KETTLE\""), "{unknown:?}");
    cart(&service, &["add", "KETTLE", "--price", "0", "--product", "another"], "").await;
    let ambiguous = cart(&service, &["remove", "kettle"], "").await;
    assert_eq!(ambiguous.exit_code, 2, "{ambiguous:?}");
    assert_eq!(ambiguous.err.lines().count(), 3, "a line for each: {ambiguous:?}");
}

#[tokio::test]
async fn a_script_ends_at_its_first_failure_without_keep_going() {
    let service = Service::start(|_| Behaviour::Answer).await;
    let script = "# a comment\n\nadd mug -p 0\nadd mug -p 0\nfrobnicate\nlist --json\nexit\nadd lamp -p 0\n";
    let run = cart(&service, &[], script).await;
    assert_eq!((run.exit_code, run.out.as_str()), (1, "added 1 of mug at 0.00\n"), "{run:?}");
    assert!(run.err.starts_with("line 4: rejected (item-already-in-cart)"), "{run:?}");
    assert_eq!(service.state().calls.len(), 2);

    let run = cart(&service, &["--keep-going"], &script.replace("mug", "jug")).await;
    assert_eq!(run.exit_code, 1, "the first failure's: {run:?}");
    assert!(run.err.contains("line 5: ") && run.out.contains("\"items\":["), "{run:?}");
    assert!(!run.out.contains("lamp"), "nothing is done after exit: {run:?}");

    let history = cart(&service, &["--json"], "list\nchange-member bob\nadd x -p 0\nhistory").await;
    let [.., history] = &history.json()[..] else { panic!("{history:?}") };
    let outcomes: Vec<_> = history.as_array().expect("a list").iter().map(|entry| entry["outcome"].clone()).collect();
    assert_eq!(outcomes, ["done", "done", "done"]);
    assert_eq!(history[2]["command"], "add x -p 0");
    assert!(!run.out.contains('\u{1b}') && !run.err.contains('\u{1b}'), "no colours for a pipe");
}

#[tokio::test]
async fn scripts_of_other_systems_are_the_same_commands() {
    let script = "change-member Jos\u{e9}\nadd 'caf\u{e9}' --price 1 --vendor acme\nadjust 'caf\u{e9}' 2\nlist --ids\n";
    let decomposed = script.replace('\u{e9}', "e\u{301}");
    let service = Service::start(|_| Behaviour::Answer).await;
    let expected = cart(&service, &["--json"], script).await;
    assert_eq!((expected.exit_code, expected.err.as_str()), (0, ""), "{expected:?}");
    let list = |run: &Run| run.json().pop().expect("a list")["items"].clone();
    assert_eq!(list(&expected)[0]["name"], "caf\u{e9}");
    for script in [
        script.replace('\n', "\r\n"),
        format!("\u{feff}{script}"),
        format!("\u{feff}{}", decomposed.replace('\n', "\r\n")),
        script.trim_end().replace('\n', "\r"),
        format!("{}\r", decomposed.trim_end()),
    ] {
        let service = Service::start(|_| Behaviour::Answer).await;
        let run = cart(&service, &["--json"], &script).await;
        assert_eq!((run.exit_code, run.err.as_str()), (0, ""), "{script:?}: {run:?}");
        assert_eq!(list(&run), list(&expected), "{script:?}");
        let carts: HashSet<_> = service.state().calls.iter().map(|call| call.cart.clone()).collect();
        assert_eq!(carts, HashSet::from([client::ids::CartId::of_member("Jos\u{e9}").to_string()]), "{script:?}");
    }
    // One product, in either composition.
    let twice = "add 'caf\u{e9}' --price 1\nadd 'cafe\u{301}' --price 1\n";
    let run = cart(&Service::start(|_| Behaviour::Answer).await, &[], twice).await;
    assert!(run.exit_code == 1 && run.err.starts_with("line 2: rejected (item-already-in-cart)"), "{run:?}");

    let latin1 = b"list\nadd caf\xe9 --price 1\nadd mug --price 1\n";
    let run = cart(&service, &[], latin1).await;
    assert_eq!(run.exit_code, 2, "{run:?}");
    assert!(run.err.starts_with("line 2: the line is not UTF-8"), "{run:?}");
    assert!(!run.out.contains("mug"), "{run:?}");
    let run = cart(&service, &["--keep-going"], latin1).await;
    assert!(run.exit_code == 2 && run.out.contains("added 1 of mug"), "{run:?}");
}

fn event(number: i64, kind: &str) -> String {
    let id = uuid::Uuid::nil();
    let item = format!(r#"{{"productId":"{id}","vendorId":"{id}","name":"red mug","price":"3.5","quantity":2}}"#);
    format!(r#"{{"type":"{kind}","sequenceNumber":{number},"occurredAt":"2026-11-29T09:29:03Z","item":{item}}}"#)
}

#[tokio::test]
async fn a_watch_goes_on_behind_the_last_event_whatever_ends_its_stream() {
    let part = |number, kind: &str| format!("id: {number}\ndata: {}\n\n", event(number, kind));
    let first = format!("retry: 1\n\n{}{}", part(1, "ItemAdded"), part(2, "ItemRemoved"));
    // The connection ends within an event.
    let second = format!("retry: 1\n\n{}: up to date\n\nid: 4\ndata: {{\"type\"", part(3, "ItemAdded"));
    let stream = |text: &str| Behaviour::Say(200, "text/event-stream", text.to_owned());
    let service = Service::start(move |call| match call.number % 5 {
        0 => stream(&first),
        1 => Behaviour::Drop,
        2 => Behaviour::Unavailable,
        3 => stream(&second),
        _ => {
            let problem = r#"{"type":"urn:cart:problem:forbidden","title":"t","status":403,"detail":"the token"}"#;
            Behaviour::Say(403, "application/problem+json", problem.to_owned())
        }
    })
    .await;
    let run = cart(&service, &["watch"], "").await;
    assert_eq!((run.exit_code, run.err.as_str()), (1, "rejected (forbidden): the token\n"), "{run:?}");
    let lines: Vec<_> = run.out.lines().collect();
    assert_eq!(lines.len(), 3, "{run:?}");
    assert_eq!(lines[0], "   1  2026-11-29T09:29:03Z  added 2 of red mug at 3.50");
    let last: Vec<_> = service.state().calls.iter().map(|call| call.last_event.clone()).collect();
    assert_eq!(last, ["0", "2", "2", "2", "3"].map(|id| Some(id.to_owned())));

    let run = cart(&service, &["watch", "bob", "--after", "7", "--json"], "").await;
    let numbers: Vec<_> = run.json().iter().filter_map(|line| line["sequenceNumber"].as_i64()).collect();
    assert_eq!((run.exit_code, numbers), (1, vec![1, 2, 3]), "{run:?}");
    let state = service.state();
    assert_eq!(state.calls[5].last_event.as_deref(), Some("7"));
    assert_eq!(state.calls[5].cart, client::ids::CartId::of_member("bob").to_string());
    assert!(run.out.starts_with(&event(1, "ItemAdded")), "the very text of the service: {run:?}");
}

/// Long enough for a busy machine.
const TERMINAL_DEADLINE: Duration = Duration::from_secs(60);

/// A terminal with a program.
struct Terminal {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    /// Starts the program, which ends when the terminal is closed.
    fn start(mut command: Command) -> (Self, Child) {
        let keyboard = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY);
        let keyboard = keyboard.expect("a terminal");
        rustix::pty::grantpt(&keyboard).expect("it is ours");
        rustix::pty::unlockpt(&keyboard).expect("it is ours");
        let name = rustix::pty::ptsname(&keyboard, Vec::new()).expect("it has a name");
        let end = File::options().read(true).write(true).open(name.to_str().expect("a path")).expect("a terminal");
        let copy = || Stdio::from(end.try_clone().expect("a terminal"));
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().expect("the binary starts");
        let keyboard = File::from(keyboard);
        let mut output = keyboard.try_clone().expect("a terminal");
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4_096];
            // An error once the program has left.
            while let Ok(len @ 1..) = output.read(&mut chunk) {
                if sender.send(chunk[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        (Self { keyboard, screen, shown: String::new() }, child)
    }

    fn types(&mut self, text: impl AsRef<[u8]>) {
        self.keyboard.write_all(text.as_ref()).expect("the terminal takes it");
    }

    /// Waits until `text` is printed, after the text of the last call.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + TERMINAL_DEADLINE;
        loop {
            if let Some(start) = self.shown.find(text) {
                self.shown.drain(..start + text.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let chunk = self.screen.recv_timeout(left).unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
}

/// The exit code of a session, which must end in time.
fn exit_code(mut child: Child) -> Option<i32> {
    let deadline = Instant::now() + TERMINAL_DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().expect("it can be ended");
            panic!("the session did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_session_accepts_text_pasted_from_other_systems() {
    let service = Service::start(|_| Behaviour::Answer).await;
    let url = service.url.clone();
    let home = std::env::temp_dir().join(format!("client-home-{}", uuid::Uuid::new_v4()));
    let (state, folder) = (home.join("state"), home.clone());
    let session = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cart"));
        command
            .args(["--url", &url, "--member", "Jose\u{301}"])
            .env_clear()
            .envs([("TERM", "xterm"), ("NO_COLOR", "1")]);
        command.env("HOME", &folder).env("XDG_STATE_HOME", state);
        let (mut terminal, child) = Terminal::start(command);
        terminal.wait_for("Jos\u{e9}> ");
        terminal.types("\u{feff}add 'caf\u{e9}' --price 1 --vendor acme\r");
        terminal.wait_for("added 1 of caf\u{e9}");
        // As terminals mark it.
        terminal.types("\u{1b}[200~\u{feff}adjust 'cafe\u{301}' 2\r\nadd tea --price 1 --vendor acme\r\n\u{1b}[201~\r");
        terminal.wait_for("adjusted to 3 of caf\u{e9}");
        terminal.wait_for("added 1 of tea");
        terminal.types(b"change-member caf\xe9 and \xff\r");
        terminal.wait_for("the line is not UTF-8");
        terminal.types("current-member\r");
        terminal.wait_for("Jos\u{e9}: cart ");
        // Between two lines the terminal would take the Ctrl-D, and not the session.
        terminal.wait_for("Jos\u{e9}> ");
        terminal.types("\u{4}");
        exit_code(child)
    };
    let exit_code = tokio::task::spawn_blocking(session).await.expect("no panic");
    // It may not exist.
    std::fs::remove_dir_all(home).unwrap_or_default();
    assert_eq!(exit_code, Some(0));
    let state = service.state();
    let carts: HashSet<_> = state.calls.iter().map(|call| call.cart.as_str()).collect();
    assert_eq!(carts, HashSet::from([client::ids::CartId::of_member("Jos\u{e9}").to_string().as_str()]));
}
