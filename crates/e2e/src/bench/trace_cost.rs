//! What carrying a trace context costs a checkout of one item, from its request to three tables, in instructions: counted by
//! callgrind, so the machine's load does not matter. The spans of batches are not included: many records share them.
//!
//! A child does it many times, once more often than the other time; the difference is free of start and end.

use std::hint::black_box;
use std::io::Write as _;
use std::process::Command;

use anyhow::{Context as _, ensure};
use cart::contract::header;
use clap::ValueEnum;
use kafka::{Header, Headers as _, OwnedHeaders, trace_headers, with_trace};
use trace::{Place, RequestHead, TraceArgs, TraceHeaders};

/// The numbers of repetitions.
const FEW: u64 = 2_000;
const MANY: u64 = 12_000;

const UNSAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const SAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Records with their other headers only
    Nothing,
    /// The client's context copied from the command to its event, unread: the least that can be done
    Copied,
    /// No collector, and the client sends no context
    OffAbsent,
    /// No collector, and the client sends a context
    OffGiven,
    /// A collector, and the client's context is not sampled
    OnUnsampled,
    /// A collector, and the client sends no context and is not sampled
    OnAbsent,
    /// A collector, and the client's context is sampled; without the export
    OnSampled,
}

/// What a child does.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoopArgs {
    /// The case
    case: Case,
    /// How often
    commands: u64,
}

impl Case {
    fn is_on(self) -> bool {
        matches!(self, Self::OnUnsampled | Self::OnAbsent | Self::OnSampled)
    }

    fn parent(self) -> Option<&'static [u8]> {
        match self {
            Self::Nothing | Self::OffAbsent | Self::OnAbsent => None,
            Self::Copied | Self::OffGiven | Self::OnUnsampled => Some(UNSAMPLED),
            Self::OnSampled => Some(SAMPLED),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "records without any trace context, for comparison",
            Self::Copied => "traceparent copied from the command to its event, for comparison",
            Self::OffAbsent => "no collector, no traceparent",
            Self::OffGiven => "no collector, traceparent passed on",
            Self::OnUnsampled => "collector, traceparent not sampled",
            Self::OnAbsent => "collector, no traceparent, the sampler says no",
            Self::OnSampled => "collector, traceparent sampled (10 spans, without the export)",
        }
    }
}

/// Counts the instructions of each case, and prints them.
pub(crate) fn print() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut nothing = None;
    for case in Case::value_variants() {
        let difference = instructions(*case, MANY)?.saturating_sub(instructions(*case, FEW)?);
        let each = difference / (MANY - FEW);
        let more = each.saturating_sub(*nothing.get_or_insert(each));
        writeln!(out, "{more:>8} instructions  {}", case.words()).context("writing the table")?;
    }
    Ok(())
}

fn instructions(case: Case, commands: u64) -> anyhow::Result<u64> {
    let program = std::env::current_exe().context("finding this program")?;
    let name = case.to_possible_value().context("a case has no name")?.get_name().to_owned();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        // Decides where the client does not.
        .env("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        .arg(program)
        .args(["trace-loop", &name, &commands.to_string()])
        .output()
        .context("running valgrind, which counts the instructions (Debian: apt-get install valgrind)")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {text}");
    let collected =
        text.lines().find_map(|line| line.split_once("Collected : ")).context("valgrind counted nothing")?;
    collected.1.trim().parse().with_context(|| format!("reading '{}'", collected.1))
}

/// The child.
pub(crate) fn run(args: &LoopArgs) -> anyhow::Result<()> {
    // Spans find the queue full: the collector is away.
    let endpoint = args.case.is_on().then(|| String::from("http://127.0.0.1:9"));
    let _tracing = TraceArgs { otel_exporter_otlp_endpoint: endpoint }.start("bench")?;
    let content_type = OwnedHeaders::new().insert(Header { key: header::CONTENT_TYPE, value: Some(header::AVRO) });
    for _ in 0..args.commands {
        match args.case {
            Case::Nothing => {
                for record in [&content_type, &content_type, &content_type] {
                    black_box(read(&record.clone()));
                }
            }
            Case::Copied => copy(&content_type),
            case @ (Case::OffAbsent | Case::OffGiven | Case::OnUnsampled | Case::OnAbsent | Case::OnSampled) => {
                checkout(black_box(TraceHeaders::new(case.parent(), None)), &content_type)
            }
        }
    }
    Ok(())
}

/// The headers of a record, as every consumer looks through them for others.
fn read(headers: &OwnedHeaders) -> usize {
    headers.iter().filter(|header| header.key == header::REPLY_PARTITION).count()
}

fn copy(content_type: &OwnedHeaders) {
    let with = |parent| content_type.clone().insert(Header { key: header::TRACE_PARENT, value: Some(parent) });
    let command = with(black_box(UNSAMPLED));
    black_box(read(&command));
    let parent = command.iter().find(|header| header.key == header::TRACE_PARENT).and_then(|header| header.value);
    let parent: Box<[u8]> = parent.unwrap_or_default().into();
    let event = with(&parent);
    black_box(read(&event));
    black_box(read(&content_type.clone()));
}

/// The request and the records of a checkout of one item, as the services make and read them.
fn checkout(client: TraceHeaders<'_>, content_type: &OwnedHeaders) {
    let place = Place { topic: "topic", partition: 3, offset: 77 };
    let head = RequestHead {
        method: "POST",
        route: Some("/cart/{cartId}/checkout"),
        scheme: "http",
        version: "1.1",
        request_id: "01a22d13-ed69-75b1-8910-5b3d41f3db99",
    };
    let request = trace::serve(client, head);
    let appended = trace::append(request.headers(), "cart-commands");
    let command = with_trace(content_type.clone(), appended.headers());

    black_box(read(&command));
    let processed = trace::process(trace_headers(Some(&command)), place, "cart-processor");
    black_box(processed.span().map(|span| span.send("cart-replies")));
    let sent = processed.send("cart-events");
    let event = with_trace(content_type.clone(), sent.headers());

    black_box(read(&event));
    let processed = trace::process(trace_headers(Some(&event)), place, "item-purchased-events");
    let sent = processed.send("item-purchased");
    let purchase = with_trace(content_type.clone(), sent.headers());

    black_box(read(&purchase));
    for _ in (0..3).filter(|_| trace::is_on()) {
        let headers = trace_headers(Some(&purchase));
        if headers.may_be_recorded() {
            black_box(trace::process(headers, place, "group"));
        }
    }
}
