//! The spans of a pipeline, as an exporter gets them.

use std::sync::{Arc, LazyLock, Mutex};

use opentelemetry::trace::{SpanId, SpanKind, Status, TraceId, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SimpleSpanProcessor, SpanData, SpanExporter};

use crate::names::{HTTP_ROUTE, POSITION, PROBLEM};
use crate::sampler::ByLinks;
use crate::span::{Tracer, install};
use crate::{Place, RequestHead, Trace, TraceHeaders, Work, append, process, serve};

/// The spans of all tests, which share the process's tracer. It records what its sender recorded.
static SPANS: LazyLock<Arc<Mutex<Vec<SpanData>>>> = LazyLock::new(|| {
    let spans = Arc::new(Mutex::new(Vec::new()));
    let processor = SimpleSpanProcessor::new(Memory(spans.clone()));
    let provider = SdkTracerProvider::builder().with_sampler(ByLinks::of_parents()).with_span_processor(processor);
    install(Tracer { sdk: provider.build().tracer("test"), follows_parents: true });
    spans
});

#[derive(Debug)]
struct Memory(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Memory {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("no test panics with it").extend(batch);
        Ok(())
    }
}

fn trace_id(number: u128) -> TraceId {
    TraceId::from_bytes(number.to_be_bytes())
}

/// A client's `traceparent` in the trace of this number.
fn parent(trace: u128, flags: &str) -> Vec<u8> {
    LazyLock::force(&SPANS);
    format!("00-{}-00f067aa0ba902b7-{flags}", trace_id(trace)).into_bytes()
}

fn spans(trace: u128) -> Vec<SpanData> {
    let spans = SPANS.lock().expect("no test panics with it");
    spans.iter().filter(|span| span.span_context.trace_id() == trace_id(trace)).cloned().collect()
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == name).map(|found| found.value.to_string())
}

fn place(offset: i64) -> Place<'static> {
    Place { topic: "cart-commands", partition: 3, offset }
}

fn consumed(parent: &[u8], offset: i64) -> Trace {
    process(TraceHeaders::new(Some(parent), Some(b"vendor=1".as_slice())), place(offset), "cart-processor")
}

#[test]
fn each_span_is_below_the_one_that_it_follows_from() {
    let parent = parent(1, "01");
    let request = RequestHead {
        method: "POST",
        route: Some("/cart/{cartId}/checkout"),
        scheme: "http",
        version: "1.1",
        request_id: "x",
    };
    let served = serve(TraceHeaders::new(Some(&parent), Some(b"vendor=1".as_slice())), request);
    let appended = append(served.headers(), "cart-commands");
    let processed = process(appended.headers(), place(77), "cart-processor");
    let sent = processed.span().expect("it is recorded").send("cart-events");
    assert_eq!(sent.headers().state(), Some(b"vendor=1".as_slice()));
    assert_eq!(sent.headers().trace_id(), Some(trace_id(1).to_string().as_str()));
    appended.span().expect("it is recorded").sent(place(77), 1);
    for trace in [&sent, &processed] {
        trace.span().expect("it is recorded").end();
    }
    served.span().expect("it is recorded").answered(503, Some("unavailable"));

    let mut spans = spans(1);
    spans.sort_by_key(|span| span.start_time);
    let found: Vec<_> = spans.iter().map(|span| (span.span_kind.clone(), span.name.as_ref())).collect();
    let expected = [
        (SpanKind::Server, "POST /cart/{cartId}/checkout"),
        (SpanKind::Producer, "send cart-commands"),
        (SpanKind::Consumer, "process cart-commands"),
        (SpanKind::Producer, "send cart-events"),
    ];
    assert_eq!(found, expected);
    let mut above = SpanId::from_hex("00f067aa0ba902b7").expect("an id");
    for span in &spans {
        assert_eq!(span.parent_span_id, above);
        above = span.span_context.span_id();
    }
    assert_eq!(attribute(&spans[0], HTTP_ROUTE).as_deref(), Some("/cart/{cartId}/checkout"));
    assert_eq!(attribute(&spans[0], PROBLEM).as_deref(), Some("unavailable"));
    assert!(matches!(spans[0].status, Status::Error { .. }));
    for span in &spans[1..3] {
        assert_eq!(attribute(span, POSITION).as_deref(), Some("cart-commands/3/77"));
    }
}

#[test]
fn an_unsampled_context_is_passed_on_as_it_came() {
    let parent = parent(2, "00");
    let headers = TraceHeaders::new(Some(&parent), Some(b"vendor=1".as_slice()));
    assert!(!headers.may_be_recorded());
    let processed = consumed(&parent, 1);
    assert!(processed.span().is_none());
    assert_eq!(processed.send("cart-events").headers(), headers);
    assert!(spans(2).is_empty());
}

#[test]
fn a_malformed_context_begins_another_trace() {
    let mut parent = parent(3, "01");
    parent[20] = b'X';
    for trace in [consumed(&parent, 1), consumed(b"00-", 1), process(TraceHeaders::default(), place(1), "group")] {
        // Without a sender that has recorded, this sampler does not. That is decided for all that follows.
        assert!(trace.span().is_none());
        assert!(trace.headers().is_valid() && trace.headers().parent().is_some_and(|parent| parent.ends_with(b"-00")));
    }
}

#[test]
fn what_is_given_up_has_failed() {
    let parent = parent(4, "01");
    drop(consumed(&parent, 1));
    consumed(&parent, 2).span().expect("it is recorded").end();
    let failed: Vec<_> = spans(4).iter().map(|span| matches!(span.status, Status::Error { .. })).collect();
    assert_eq!(failed, [true, false]);
}

#[test]
fn work_for_many_records_is_linked_with_each_and_has_its_steps() {
    let parent = parent(5, "01");
    let records: Vec<_> = (0..40).map(|offset| consumed(&parent, offset)).collect();
    let mut work = Work::begin("process", "cart-commands", 100, records.iter().filter_map(Trace::span));
    work.step("decide");
    work.database_step("cassandra", "INSERT", "cart_journal", 40);
    work.end();
    for record in &records {
        record.span().expect("it is recorded").end();
    }
    let records = spans(5);
    let work_ids: Vec<_> = records.iter().map(|span| span.links.links[0].span_context.clone()).collect();
    assert!(work_ids.len() == 40 && work_ids.iter().all(|id| *id == work_ids[0]));
    let all = SPANS.lock().expect("no test panics with it");
    let of_work: Vec<_> =
        all.iter().filter(|span| span.span_context.trace_id() == work_ids[0].trace_id()).cloned().collect();
    let names: Vec<_> = of_work.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["decide", "INSERT cart_journal", "process cart-commands (batch)"]);
    assert_eq!(of_work[2].links.links.len(), 32);
    assert!(of_work[0].end_time <= of_work[1].start_time, "one step after the other");
}

#[test]
fn unrecorded_records_cause_no_work_to_be_recorded() {
    let parent = parent(6, "00");
    let records = [consumed(&parent, 1)];
    let mut work = Work::begin("process", "cart-commands", 1, records.iter().filter_map(Trace::span));
    work.step("decide");
    assert!(format!("{work:?}").contains("None"));
}
