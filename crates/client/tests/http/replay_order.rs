//! Order, keys and counts while the service misbehaves, and latencies measured from the schedule.

use std::collections::{BTreeSet, HashMap};
use std::future::pending;
use std::time::Duration;

use clap::Parser;
use client::ids::CartId;
use client::replay::{Args, Report, run};

use crate::replay_setup::{TempFile, args, replay};
use crate::service::{Behaviour, Call, Service};

/// Every third request fails in some way. Which one follows from its number of arrival.
fn badly(call: &Call) -> Behaviour {
    match call.number * 7 % 30 {
        0..2 => Behaviour::Drop,
        2..4 => Behaviour::ExecuteAndDrop,
        4..6 => Behaviour::Unavailable,
        6..8 => Behaviour::ExecuteAndSayPending,
        8..10 => Behaviour::Say(500, "text/plain", "boom".to_owned()),
        delay @ 10..14 => Behaviour::AnswerLate(Duration::from_millis(u64::try_from(delay - 9).expect("a few"))),
        _ => Behaviour::Answer,
    }
}

#[tokio::test]
async fn each_members_commands_stay_in_order_in_spite_of_failures() {
    let service = Service::start(badly).await;
    let sent = TempFile::new(".csv.gz");
    let options = format!(
        "--commands 3000 --members 40 --products 30 --hot-carts 2 --hot-share 0.3 --refused-share 0.1 \
         --concurrency 16 --expect-intended --sent {}",
        sent.0.display()
    );
    let args = Args { look_ahead: 100, ..args(&service, &options) };
    let report = run(&args, pending()).await.expect("a run");
    let state = service.state();

    assert_eq!(report.failures, Vec::<String>::new(), "{report:#?}");
    assert_eq!((report.commands, report.unanswered, report.unintended, report.exit_code()), (3000, 0, 0, 0));
    assert_eq!(report.accepted + report.refused, 3000);
    assert!((200..400).contains(&report.refused), "{}", report.refused);
    assert_eq!(report.counts.iter().map(|count| count.count).sum::<u64>(), 3000);
    assert_eq!(report.latency_us.map(|latency| latency.count), Some(3000));

    let retries = report.retries;
    assert!(retries.pending > 0 && retries.unavailable > 0 && retries.unknown > 0, "{retries:?}");
    let retried = retries.pending + retries.unavailable + retries.not_executed + retries.unknown;
    assert_eq!(
        u64::try_from(state.calls.len()).expect("a count"),
        3000 + retried,
        "each request is a command or a retry"
    );

    assert_eq!(state.overtaken, Vec::<String>::new(), "one command of a member at a time");
    assert!((2..=16).contains(&state.in_flight_most), "{} in flight", state.in_flight_most);
    let mut latest: HashMap<&str, u64> = HashMap::new();
    for call in &state.calls {
        let latest = latest.entry(&call.cart).or_default();
        assert!(call.sequence() >= *latest, "{} after {latest} in cart {}", call.sequence(), call.cart);
        *latest = call.sequence();
    }
    let sequences: BTreeSet<u64> = state.calls.iter().map(Call::sequence).collect();
    assert!(sequences.iter().copied().eq(1..=3000), "every command has its own key");
    assert_sent_file(&sent, &report, &state.calls);
}

/// The file has every command once, in order per member, with the same counts.
fn assert_sent_file(sent: &TempFile, report: &Report, calls: &[Call]) {
    let file = std::fs::File::open(&sent.0).expect("the sent file");
    let mut rows = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    let mut by_member: HashMap<String, Vec<String>> = HashMap::new();
    let mut counts: HashMap<(String, String), u64> = HashMap::new();
    for row in rows.records() {
        let row = row.expect("a good row");
        by_member.entry(row[1].to_owned()).or_default().push(row[0].to_owned());
        *counts.entry((row[2].to_owned(), row[8].to_owned())).or_default() += 1;
        assert!(!row[9].is_empty(), "every command has its id: {row:?}");
    }
    for count in &report.counts {
        let key = (count.action.to_owned(), count.outcome.clone());
        assert_eq!(counts.get(&key), Some(&count.count), "{key:?}");
    }
    for (member, times) in by_member {
        let cart = CartId::of_member(&member).to_string();
        let mut arrivals: Vec<_> = calls.iter().filter(|call| call.cart == cart).collect();
        arrivals.dedup_by_key(|call| call.sequence());
        let arrived: Vec<_> = arrivals.iter().map(|call| call.time.clone().expect("its time")).collect();
        assert_eq!(times, arrived, "member {member}");
    }
}

#[tokio::test]
async fn one_slow_member_does_not_hold_the_others_back() {
    let slow = CartId::of_member("m0").to_string();
    let held = slow.clone();
    let service = Service::start(move |call| if call.cart == held { Behaviour::Hold } else { Behaviour::Answer }).await;
    let options = "--commands 300 --members 20 --concurrency 4 --member-skew 0 --refused-share 0";
    let args = args(&service, options);
    let others = {
        let shop = client::replay::shop::Shop::new(&args.shop).expect("good settings");
        shop.filter(|command| &*command.member != "m0").count()
    };
    assert!(others < 300, "the slow member has commands, too");
    let all_others = async {
        service.saw(others + 1).await;
        service.release();
    };
    let (report, ()) = tokio::join!(run(&args, pending()), all_others);
    assert_eq!(report.expect("a run").accepted, 300);
}

#[tokio::test]
async fn reading_stops_while_the_look_ahead_is_full() {
    let service = Service::start(|call| if call.number == 0 { Behaviour::Hold } else { Behaviour::Answer }).await;
    let options = "--commands 200 --members 1 --concurrency 4 --refused-share 0";
    let args = Args { look_ahead: 5, ..args(&service, options) };
    let later = async {
        service.saw(1).await;
        service.release();
    };
    let (report, ()) = tokio::join!(run(&args, pending()), later);
    assert_eq!(report.expect("a run").accepted, 200);
    assert_eq!(service.state().in_flight_most, 1);
}

#[tokio::test]
async fn an_open_loop_counts_from_the_schedule() {
    const STALL: Duration = Duration::from_millis(150);
    let service = Service::start(|call| match call.number {
        0 => Behaviour::AnswerLate(STALL),
        _ => Behaviour::Answer,
    })
    .await;
    // Ten commands of one member, due within 10 ms: all wait behind the stalled first one, and each of these waits counts.
    let report = replay(&service, "--rate 1000 --commands 10 --members 1 --refused-share 0").await;
    let latency = report.latency_us.expect("answers");
    assert_eq!(latency.count, 10);
    // The last was due 9 ms after the first; the histogram is right to a thousandth.
    assert!(latency.min >= 140_000, "{latency:?}");
    assert_eq!(report.load, "open");
}

#[tokio::test]
async fn an_open_loop_sends_nothing_before_it_is_due() {
    let service = Service::start(|_| Behaviour::Answer).await;
    let report = replay(&service, "--rate 500 --commands 101 --members 50 --refused-share 0").await;
    assert_eq!(report.commands, 101);
    assert!(report.elapsed_seconds >= 0.2, "100 intervals of 2 ms: {}", report.elapsed_seconds);
}

#[tokio::test]
async fn several_services_take_turns() {
    let first = Service::start(|_| Behaviour::Answer).await;
    let second = Service::start(|_| Behaviour::Unavailable).await;
    let options = format!("--url {},{} --commands 20 --members 1 --mix add=1 --refused-share 0", first.url, second.url);
    let args = Args::try_parse_from(["replay"].into_iter().chain(options.split_whitespace())).expect("good options");
    let args = Args { retry_pause: Duration::from_millis(1), ..args };
    let report = run(&args, pending()).await.expect("a run");
    assert_eq!((report.accepted, report.retries.unavailable), (20, 10));
    assert_eq!((first.state().calls.len(), second.state().calls.len()), (20, 10));
}
