//! A span, and what a record's headers carry of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use opentelemetry::trace::{SpanBuilder, SpanContext, SpanRef, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, Key, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use crate::headers::{Kept, TraceHeaders};

/// Makes the process's spans. Empty while nothing is traced.
static TRACER: OnceLock<Tracer> = OnceLock::new();

pub(crate) struct Tracer {
    pub(crate) sdk: SdkTracer,
    /// Whether spans are recorded exactly if their parents are.
    pub(crate) follows_parents: bool,
}

/// The first one stays.
pub(crate) fn install(tracer: Tracer) {
    drop(TRACER.set(tracer));
}

/// What follows from a request or a record belongs to this.
#[derive(Debug, Clone, Default)]
pub enum Trace {
    /// Nothing is known of a trace.
    #[default]
    None,
    /// A trace that is not recorded here.
    Passed(Passed),
    /// A trace that is recorded here.
    Recorded(Span),
}

/// The context of a trace that is not recorded here, as it came.
#[derive(Debug, Clone)]
pub struct Passed(Kept);

impl Trace {
    /// The trace of `headers`, with a new span in it if it is to be recorded.
    pub(crate) fn begin(headers: TraceHeaders<'_>, span: impl FnOnce() -> SpanBuilder) -> Self {
        match recorder(headers) {
            Some(tracer) => tracer.start(headers.context(), span()),
            None => Self::passed(headers),
        }
    }

    fn passed(headers: TraceHeaders<'_>) -> Self {
        Kept::of(headers).map_or(Self::None, |kept| Self::Passed(Passed(kept)))
    }

    /// Its span, if it is recorded.
    #[must_use]
    pub fn span(&self) -> Option<&Span> {
        match self {
            Self::Recorded(span) => Some(span),
            Self::None | Self::Passed(_) => None,
        }
    }

    /// The headers of what follows from it.
    #[must_use]
    pub fn headers(&self) -> TraceHeaders<'_> {
        match self {
            Self::None => TraceHeaders::default(),
            Self::Passed(passed) => passed.0.headers(),
            Self::Recorded(span) => span.0.headers.headers(),
        }
    }
}

/// Whether anything is recorded in this process. If not, a caller that passes nothing on need not look for contexts.
#[must_use]
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// The tracer, unless a trace with these headers is surely not recorded here. This is what each record costs that is not.
fn recorder(headers: TraceHeaders<'_>) -> Option<&'static Tracer> {
    let tracer = TRACER.get()?;
    let is_unsampled = headers.parent().is_some() && !headers.is_sampled();
    (!is_unsampled || !tracer.follows_parents).then_some(tracer)
}

impl TraceHeaders<'_> {
    /// Whether a span may be recorded for these. If not, a caller that passes nothing on need not keep them.
    #[must_use]
    pub fn may_be_recorded(self) -> bool {
        recorder(self).is_some()
    }
}

impl Tracer {
    /// Begins a span, unless the sampler decides against it. Then the decision is passed on.
    fn start(&self, parent: Option<SpanContext>, span: SpanBuilder) -> Trace {
        let parent = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let context = Context::new().with_span(self.sdk.build_with_context(span, &parent));
        let (is_recorded, span_context) = (context.span().is_recording(), context.span().span_context().clone());
        // Once tracing has ended.
        if !span_context.is_valid() {
            return Trace::None;
        }
        let headers = Kept::of_span(&span_context);
        if !is_recorded {
            return Trace::Passed(Passed(headers));
        }
        Trace::Recorded(Span(Arc::new(Inner { context, span_context, headers, is_ended: AtomicBool::new(false) })))
    }
}

/// A recorded span. Clones are the same span. One that is dropped without [`Span::end`] ends as failed: what it stood for was
/// given up, and is done again.
#[derive(Clone)]
pub struct Span(Arc<Inner>);

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(self.context()).finish()
    }
}

struct Inner {
    context: Context,
    span_context: SpanContext,
    headers: Kept,
    is_ended: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.is_ended.load(Ordering::Relaxed) {
            self.context.span().set_status(Status::error("given up"));
        }
    }
}

impl Span {
    fn otel(&self) -> SpanRef<'_> {
        self.0.context.span()
    }

    pub(crate) fn context(&self) -> &SpanContext {
        &self.0.span_context
    }

    /// Sets an attribute: a name of [`crate::names`].
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        self.otel().set_attribute(KeyValue::new(name, value));
    }

    pub(crate) fn set_owned(&self, name: Key, value: Value) {
        self.otel().set_attribute(KeyValue::new(name, value));
    }

    /// Begins a span below it.
    pub(crate) fn child(&self, span: SpanBuilder) -> Trace {
        let begin = |tracer: &Tracer| tracer.start(Some(self.context().clone()), span);
        TRACER.get().map_or(Trace::None, begin)
    }

    /// Links it to another one.
    pub(crate) fn link_to(&self, other: &Self) {
        self.otel().add_link(other.context().clone(), Vec::new());
    }

    /// What it stands for is done.
    pub fn end(&self) {
        self.0.is_ended.store(true, Ordering::Relaxed);
        self.otel().end();
    }

    /// What it stands for has failed.
    pub fn fail(&self, reason: impl fmt::Display) {
        self.otel().set_status(Status::error(reason.to_string()));
        self.end();
    }
}
