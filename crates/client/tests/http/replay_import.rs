//! The report of an import: which part of a file was sent, and how to continue.

use std::fmt::Write as _;
use std::future::pending;
use std::io::Write as _;
use std::time::Duration;

use client::replay::{Args, Report, run, table};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::replay_setup::{HEADER, TempFile, args, file, replay};
use crate::service::{Behaviour, Service};

/// Adds of different products.
fn add(member: &str, product: &str) -> String {
    format!("2010-12-01T08:25:53Z,{member},add,{product},V,N,2.50,1\n")
}

fn shown(report: &Report) -> String {
    let mut shown = Vec::new();
    table::write(report, &mut shown).expect("memory takes it");
    String::from_utf8(shown).expect("text")
}

/// The place in the source of each request, from its key.
fn sent(service: &Service) -> Vec<u64> {
    let mut sent: Vec<_> = service.state().calls.iter().map(crate::service::Call::sequence).collect();
    sent.sort_unstable();
    sent
}

#[tokio::test]
async fn an_invalid_line_ends_an_import_after_the_lines_before_it() {
    // The first member's commands wait for each other while the invalid line is read.
    let before = [add("1", "A"), add("1", "B"), add("2", "A"), "\n".to_owned(), add("1", "C")].concat();
    let after = [add("2", "B"), add("1", "D")].concat();
    let bad = add("1", "X").replace("2.50", "1_000");
    let import = file(&format!("{before}{bad}{after}"));
    let service = Service::start(|_| Behaviour::AnswerLate(Duration::from_millis(20))).await;
    let options = format!("--file {}", import.0.display());
    let report = replay(&service, &options).await;
    assert_eq!((report.accepted, report.exit_code(), sent(&service)), (4, 1, vec![1, 2, 3, 4]), "{report:?}");
    let unfinished = report.unfinished.clone().expect("there is more in the file");
    assert_eq!((unfinished.line, unfinished.answered_after), (7, 0));
    assert_eq!(unfinished.options, "--run-id test --from-line 7");
    let fault = "line 7: price \"1_000\": '1_000' is not a decimal number such as 12.50";
    assert_eq!(report.failures, [format!("{}: {fault}", import.0.display())]);
    let text = shown(&report);
    for expected in [
        "sent: every command before line 7; 4 accepted and 0 rejected in this run",
        "not sent: line 7 and all lines after it",
        &format!("FAILED: {}: {fault}", import.0.display()),
        "correct line 7, do not change the lines before it, and run the same command with --run-id test --from-line 7",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }

    // The rest, and nothing else.
    std::fs::write(&import.0, format!("{HEADER}{before}{}{after}", add("1", "X"))).expect("the file");
    let report = replay(&service, &format!("{options} {}", "--from-line 7")).await;
    assert_eq!((report.accepted, report.exit_code(), report.unfinished.as_ref()), (3, 0, None), "{report:?}");
    assert_eq!(sent(&service), [1, 2, 3, 4, 5, 6, 7]);
    // All of it again: the service returns the first outcome of each.
    let report = replay(&service, &options).await;
    assert_eq!((report.accepted, report.refused, report.exit_code()), (7, 0, 0), "{report:?}");
}

#[tokio::test]
async fn a_skipped_invalid_line_keeps_its_number() {
    for (bad, line) in [
        ("2010-12-01T08:26:00Z,1,pay,,,,,\n", 3),
        ("2010-12-01T08:26:00Z,1\n", 3),
        ("\"\n", 3),
        ("0000-01-01T00:00:00+00:01,1,checkout,,,,,\n", 3),
    ] {
        let import = file(&format!("{}{bad}{}", add("1", "A"), add("1", "B")));
        let service = Service::start(|_| Behaviour::Answer).await;
        let options = format!("--file {}", import.0.display());
        let report = replay(&service, &options).await;
        assert_eq!(report.unfinished.map(|unfinished| unfinished.line), Some(line), "{bad}");
        let report = replay(&service, &format!("{options} --from-line {}", line + 1)).await;
        assert_eq!((report.accepted, report.exit_code(), sent(&service)), (1, 0, vec![1, 3]), "{bad}");
    }
}

#[tokio::test]
async fn an_import_of_raw_rows_can_be_continued() {
    let header = "StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID\n";
    let rows = |price: &str| {
        format!(
            "{header}A,N,1,2010-12-01T09:49:00Z,-1,7\nB,N,1,2010-12-01T09:49:00Z,{price},7\nC,N,1,2010-12-01T09:49:00Z,1,7\n"
        )
    };
    let import = TempFile::new(".csv");
    let service = Service::start(|_| Behaviour::Answer).await;
    let options = format!("--rows {}", import.0.display());
    std::fs::write(&import.0, rows("1_0")).expect("a temporary file");
    let report = replay(&service, &options).await;
    let line = report.unfinished.as_ref().map(|unfinished| unfinished.line);
    assert_eq!((report.commands, report.exit_code(), line), (1, 1, Some(3)), "{report:?}");
    std::fs::write(&import.0, rows("10")).expect("a temporary file");
    let report = replay(&service, &format!("{options} --from-line 3")).await;
    assert_eq!((report.commands, report.exit_code(), sent(&service)), (2, 0, vec![1, 2, 3]), "{report:?}");
}

#[tokio::test]
async fn names_the_first_line_without_an_answer() {
    let member = client::ids::CartId::of_member("1").to_string();
    let service =
        Service::start(move |call| if call.cart == member { Behaviour::Drop } else { Behaviour::Answer }).await;
    let import = file(&[add("1", "A"), add("2", "A"), add("3", "A"), add("1", "B")].concat());
    let report = replay(&service, &format!("--file {} --retry-for 500ms", import.0.display())).await;
    assert_eq!((report.accepted, report.unanswered, report.exit_code()), (2, 1, 1), "{report:?}");
    let unfinished = report.unfinished.clone().expect("there is more in the file");
    assert_eq!((unfinished.line, unfinished.answered_after, &unfinished.fault), (2, 2, &None));
    let text = shown(&report);
    for expected in [
        "every command before line 2, and 2 after it, which will be sent again with the same keys",
        "not sent or not answered: line 2, and others after it",
        "do not change the file, and run the same command with --run-id test --from-line 2",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[tokio::test]
async fn an_interrupted_import_can_be_continued() {
    let rows: String = (0..50).map(|number| add("1", &format!("P{number}"))).collect();
    let import = file(&rows);
    let service = Service::start(|_| Behaviour::Answer).await;
    let options = format!("--file {}", import.0.display());
    let few = Args { look_ahead: 5, ..args(&service, &options) };
    let report = run(&few, service.saw(10)).await.expect("a run");
    assert!(report.interrupted && report.exit_code() == 130, "{report:?}");
    let unfinished = report.unfinished.expect("there is more in the file");
    assert_eq!((unfinished.line, unfinished.answered_after), (report.commands + 2, 0));
    let rest = replay(&service, &format!("{options} --from-line {}", unfinished.line)).await;
    assert_eq!((report.commands + rest.accepted, rest.exit_code()), (50, 0), "{rest:?}");
    assert_eq!(sent(&service), (1..=50).collect::<Vec<_>>(), "each was sent once");
}

#[tokio::test]
async fn no_line_counts_as_sent_if_the_service_rejects_times() {
    let problem = r#"{"type":"urn:cart:problem:invalid-header","title":"Invalid header","status":400,"detail":"no"}"#;
    let service = Service::start(|_| Behaviour::Say(400, "application/problem+json", problem.to_owned())).await;
    let import = file(&[add("1", "A"), add("2", "B"), add("3", "C")].concat());
    let report = replay(&service, &format!("--file {} --concurrency 2", import.0.display())).await;
    let unfinished = report.unfinished.expect("there is more in the file");
    assert_eq!((unfinished.line, unfinished.answered_after), (2, 0));
}

#[tokio::test]
async fn the_first_line_must_be_in_the_file() {
    let service = Service::start(|_| Behaviour::Answer).await;
    let import = file(&add("1", "A"));
    let error = run(&args(&service, "--from-line 3"), pending()).await.expect_err("no file");
    assert!(error.to_string().contains("--file"), "{error}");
    let options = format!("--file {} --from-line 4", import.0.display());
    let error = run(&args(&service, &options), pending()).await.expect_err("no such line");
    assert!(format!("{error:#}").contains("the run cannot start at line 4: the file has 2 lines"), "{error:#}");
    let words = ["replay", "--file", "x", "--from-line", "3"];
    let error = <client::replay::Args as clap::Parser>::try_parse_from(words).expect_err("another run's keys");
    assert!(error.to_string().contains("--run-id"), "{error}");
    assert_eq!(service.state().calls.len(), 0);
}

#[tokio::test]
async fn skipped_lines_take_no_time_in_an_open_loop() {
    let mut rows = String::new();
    for number in 0..1_000 {
        write!(rows, "{}", add("1", &number.to_string())).expect("memory takes it");
    }
    let import = file(&rows);
    let service = Service::start(|_| Behaviour::Answer).await;
    let report = replay(&service, &format!("--file {} --from-line 1001 --rate 20", import.0.display())).await;
    assert_eq!((report.accepted, sent(&service)), (1, vec![1_000]), "{report:?}");
    assert!(report.elapsed_seconds < 10.0, "the first command was due after {} s", report.elapsed_seconds);
}

/// The same commands in files of other systems, plain and gzipped.
#[tokio::test]
async fn files_of_other_systems_are_the_same_commands() {
    let rows = [add("Jos\u{e9}", "caf\u{e9}"), add("Jos\u{e9}", "th\u{e9}")].concat();
    let text = format!("{HEADER}{rows}");
    let decomposed = text.replace('\u{e9}', "e\u{301}").replace('\n', "\r\n");
    let gzip = |text: &str, padding: &[u8]| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).expect("memory takes it");
        [&gzip.finish().expect("memory takes it"), padding].concat()
    };
    let service = Service::start(|_| Behaviour::Answer).await;
    let files = [
        text.clone().into_bytes(),
        format!("\u{feff}{decomposed}").into_bytes(),
        format!("{text}\r").into_bytes(),
        gzip(&decomposed, &[]),
        gzip(&format!("\u{feff}{text}"), &[0; 10_240]),
    ];
    for (number, bytes) in files.iter().enumerate() {
        let import = TempFile::new(".csv");
        std::fs::write(&import.0, bytes).expect("a temporary file");
        let mut args = args(&service, &format!("--file {}", import.0.display()));
        args.run_id = Some(format!("other{number}"));
        let report = run(&args, pending()).await.expect("a run");
        let accepted = if number == 0 { 2 } else { 0 };
        assert_eq!(
            (report.accepted, report.refused, report.exit_code()),
            (accepted, 2 - accepted, 0),
            "{number}: {report:?}"
        );
    }
    let carts: std::collections::HashSet<_> = service.state().calls.iter().map(|call| call.cart.clone()).collect();
    assert_eq!(carts.len(), 1, "one member has one cart");

    let import = TempFile::new(".csv.gz");
    std::fs::write(&import.0, gzip(&text, b"garbage")).expect("a temporary file");
    let report = replay(&service, &format!("--file {}", import.0.display())).await;
    assert_eq!((report.commands, report.exit_code()), (2, 1), "{report:?}");
    assert!(report.failures[0].contains("line 4: reading failed: "), "{:?}", report.failures);
}
