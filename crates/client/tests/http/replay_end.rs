//! The ends of a run: complete, stopped, interrupted, or with unexpected outcomes.

use std::future::pending;

use client::replay::{run, table};

use crate::replay_setup::{TempFile, args, file, replay};
use crate::service::{Behaviour, Service};

fn text(file: &TempFile) -> String {
    std::fs::read_to_string(&file.0).expect("the file")
}

#[tokio::test]
async fn a_repeat_with_the_same_run_id_changes_nothing() {
    let service = Service::start(|_| Behaviour::Answer).await;
    let options = "--commands 500 --members 20 --refused-share 0 --expect-intended";
    let once = replay(&service, options).await;
    let again = replay(&service, options).await;
    assert_eq!((once.exit_code(), again.exit_code()), (0, 0), "{again:?}");
    assert_eq!(again.accepted, 500);
}

#[tokio::test]
async fn a_file_is_replayed_with_its_times_by_default() {
    let rows = "2010-12-01T08:25:53Z,1,add,A,V,N,2.50,6\n2010-12-01T08:26:00Z,1,checkout,,,,,\n";
    let (file, sent) = (file(rows), TempFile::new(".csv"));
    let service = Service::start(|_| Behaviour::Answer).await;
    let options = format!("--file {} --sent {} --expect-no-refusals", file.0.display(), sent.0.display());
    let report = replay(&service, &options).await;
    assert_eq!((report.accepted, report.exit_code()), (2, 0), "{report:?}");
    let times: Vec<_> = service.state().calls.iter().map(|call| call.time.clone()).collect();
    assert_eq!(times[0].as_deref(), Some("2010-12-01T08:25:53Z"));
    let first_row = text(&sent).lines().nth(1).expect("a row").to_owned();
    assert!(first_row.starts_with("2010-12-01T08:25:53Z,1,add,A,V,N,2.5,6,accepted,"), "{first_row}");

    replay(&service, &format!("--file {} --no-send-time", file.0.display())).await;
    assert_eq!(service.state().calls[2].time, None);
    // The file of sent commands can be replayed.
    let report = replay(&service, &format!("--file {} --limit 1", sent.0.display())).await;
    assert_eq!(report.accepted, 1);
}

#[tokio::test]
async fn a_rejection_fails_the_run_if_none_is_expected() {
    let rows = "2010-12-01T08:26:00Z,1,checkout,,,,,\n".repeat(30);
    let file = file(&rows);
    let service = Service::start(|_| Behaviour::Answer).await;
    let report = replay(&service, &format!("--file {} --expect-no-refusals", file.0.display())).await;
    assert_eq!((report.refused, report.first_refused.len(), report.exit_code()), (30, 20, 1));
    let mut shown = Vec::new();
    table::write(&report, &mut shown).expect("memory takes it");
    let shown = String::from_utf8(shown).expect("text");
    assert!(
        shown.contains("1 (line 2) at 2010-12-01T08:26:00Z, member 1: Checkout: empty-cart-checkout: by the rules"),
        "{shown}"
    );
    assert!(shown.contains("FAILED: 30 commands were rejected"), "{shown}");

    let report = replay(&service, &format!("--file {}", file.0.display())).await;
    assert_eq!(report.exit_code(), 0);
}

#[tokio::test]
async fn contradicting_settings_are_rejected_before_anything_is_sent() {
    let service = Service::start(|_| Behaviour::Answer).await;
    let error = run(&args(&service, "--expect-no-refusals"), pending()).await.expect_err("2 % are refused");
    assert!(error.to_string().contains("--refused-share 0"), "{error}");
    assert_eq!(service.state().calls.len(), 0);
}

#[tokio::test]
async fn an_unanswered_command_stops_the_run() {
    let service = Service::start(|call| if call.number < 5 { Behaviour::Answer } else { Behaviour::Drop }).await;
    let sent = TempFile::new(".csv");
    let options = format!("--commands 100 --concurrency 1 --retry-for 30ms --sent {}", sent.0.display());
    let report = replay(&service, &options).await;
    assert_eq!((report.commands, report.unanswered, report.exit_code()), (6, 1, 1), "{report:?}");
    assert_eq!(report.latency_us.map(|latency| latency.count), Some(5));
    assert!(report.first_unanswered[0].reason.contains("did not respond"), "{:?}", report.first_unanswered);
    assert!(text(&sent).trim_end().ends_with(",unanswered,"), "{}", text(&sent));
}

#[tokio::test]
async fn a_failed_connection_is_reported_as_not_executed() {
    let mut args = {
        let service = Service::start(|_| Behaviour::Answer).await;
        args(&service, "--commands 10 --retry-for 20ms")
    };
    args.url = vec!["http://127.0.0.1:1".to_owned()];
    let report = run(&args, pending()).await.expect("a run");
    assert!(report.retries.not_executed > 0 && report.unanswered > 0 && report.accepted == 0, "{report:?}");
    assert_eq!(report.exit_code(), 1);
}

#[tokio::test]
async fn a_service_that_rejects_times_ends_the_run_with_a_hint() {
    let problem = r#"{"type":"urn:cart:problem:invalid-header","title":"Invalid header","status":400,"detail":"no"}"#;
    let service = Service::start(|_| Behaviour::Say(400, "application/problem+json", problem.to_owned())).await;
    let report = replay(&service, "--commands 1000 --concurrency 2").await;
    assert!(report.commands <= 2, "{}", report.commands);
    assert!(report.failures[0].contains("--allow-client-time"), "{:?}", report.failures);
}

#[tokio::test]
async fn an_interrupt_waits_for_the_commands_in_flight() {
    let service = Service::start(|call| if call.number < 20 { Behaviour::Answer } else { Behaviour::Hold }).await;
    let args = args(&service, "--commands 1000 --concurrency 4 --refused-share 0");
    let interrupt = async {
        service.saw(24).await;
    };
    let interrupted = async {
        let run = run(&args, interrupt);
        let release = async {
            service.saw(24).await;
            service.release();
        };
        tokio::join!(run, release).0
    };
    let report = interrupted.await.expect("a run");
    assert!(report.interrupted && report.failures.is_empty(), "{report:?}");
    assert_eq!(report.exit_code(), 130);
    assert!(report.commands < 1000);
    assert_eq!(report.commands, report.accepted, "all that was sent is answered");
    assert_eq!(u64::try_from(service.state().calls.len()).expect("a count"), report.commands);
}

#[tokio::test]
async fn an_interrupt_does_not_wait_for_ever() {
    let service = Service::start(|_| Behaviour::Hold).await;
    let sent = TempFile::new(".csv");
    let options = format!("--commands 50 --concurrency 3 --drain-for 20ms --sent {}", sent.0.display());
    let report = run(&args(&service, &options), service.saw(3)).await.expect("a run");
    assert_eq!((report.commands, report.unanswered, report.exit_code()), (3, 3, 1), "{report:?}");
    assert_eq!(text(&sent).lines().filter(|line| line.ends_with(",unanswered,")).count(), 3);
}
