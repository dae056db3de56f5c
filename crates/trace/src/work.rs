//! Work for many records at once.

use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanKind};

use crate::TraceHeaders;
use crate::names::{DB_BATCH_SIZE, DB_OPERATION, DB_SYSTEM, DB_TABLE, MESSAGING_COUNT};
use crate::span::{Span, Trace};
use crate::spans::{builder, messaging};

/// Most links from a piece of work to records. Each record has its link to the work, so none is lost.
const LINKS_MAX: usize = 32;

/// A piece of work for several records: the root of a trace of its own, and the steps below it, one after the other. It is
/// recorded if a record is. Dropped without [`Work::end`], it has failed.
#[derive(Debug, Default)]
pub struct Work(Option<Box<Recorded>>);

#[derive(Debug)]
struct Recorded {
    work: Span,
    /// When the step in progress began.
    step_since: SystemTime,
}

impl Work {
    /// Begins to `operation` (a verb, as in "process") `records` records of a topic, of which those with `spans` are recorded.
    #[must_use]
    pub fn begin<'a>(
        operation: &'static str,
        topic: &str,
        records: usize,
        spans: impl Iterator<Item = &'a Span> + Clone,
    ) -> Self {
        let links: Vec<_> =
            spans.clone().take(LINKS_MAX).map(|span| Link::with_context(span.context().clone())).collect();
        if links.is_empty() {
            return Self::default();
        }
        let trace = Trace::begin(TraceHeaders::default(), || {
            let mut attributes = messaging(operation, topic);
            attributes.push(KeyValue::new(MESSAGING_COUNT, count(records)));
            builder(format!("{operation} {topic} (batch)"), SpanKind::Internal, attributes).with_links(links)
        });
        let Trace::Recorded(work) = trace else { return Self::default() };
        for span in spans {
            span.link_to(&work);
        }
        Self(Some(Box::new(Recorded { work, step_since: SystemTime::now() })))
    }

    /// A step has ended, and the next begins.
    pub fn step(&mut self, name: &'static str) {
        self.ended(|| (name.to_owned(), SpanKind::Internal, Vec::new()));
    }

    /// The step that has ended was one in a database: `operation` of `rows` rows of `table`.
    pub fn database_step(&mut self, system: &'static str, operation: &'static str, table: &str, rows: usize) {
        self.ended(|| {
            let mut attributes = vec![
                KeyValue::new(DB_SYSTEM, system),
                KeyValue::new(DB_OPERATION, operation),
                KeyValue::new(DB_TABLE, table.to_owned()),
            ];
            // By the conventions one row is no batch.
            attributes.extend((rows > 1).then(|| KeyValue::new(DB_BATCH_SIZE, count(rows))));
            (format!("{operation} {table}"), SpanKind::Client, attributes)
        });
    }

    fn ended(&mut self, step: impl FnOnce() -> (String, SpanKind, Vec<KeyValue>)) {
        let Some(recorded) = &mut self.0 else { return };
        let (name, kind, attributes) = step();
        let step = builder(name, kind, attributes).with_start_time(recorded.step_since);
        if let Trace::Recorded(step) = recorded.work.child(step) {
            step.end();
        }
        recorded.step_since = SystemTime::now();
    }

    /// The work is done.
    pub fn end(self) {
        if let Some(recorded) = self.0 {
            recorded.work.end();
        }
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
