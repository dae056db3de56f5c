//! The way of finished spans to the collector: a bounded queue, and a thread that sends what is in it. A span that finds the queue
//! full, or whose request to the collector fails, is dropped and counted. Nothing else waits for the collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ::metrics::Counter;
use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_QUEUE_SIZE_DEFAULT, Span, SpanData,
    SpanExporter, SpanProcessor,
};

/// The SDK's queue and thread. The SDK does not say how many spans it drops, so they are counted before it.
#[derive(Debug)]
pub(crate) struct BoundedQueue {
    processor: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    len_max: usize,
    dropped: Counter,
}

impl BoundedQueue {
    /// Settings of size and times come from `OTEL_BSP_*`.
    pub(crate) fn new(exporter: impl SpanExporter + 'static, collector: String, dropped: Counter) -> Self {
        let len_max = std::env::var(OTEL_BSP_MAX_QUEUE_SIZE).ok().and_then(|len| len.parse().ok());
        Self::of_len(exporter, collector, dropped, len_max.unwrap_or(OTEL_BSP_MAX_QUEUE_SIZE_DEFAULT).max(1))
    }

    fn of_len(exporter: impl SpanExporter + 'static, collector: String, dropped: Counter, len_max: usize) -> Self {
        let waiting = Arc::new(AtomicUsize::new(0));
        let (is_failing, taken) = (AtomicBool::new(false), waiting.clone());
        let exporter = Counting { exporter, collector, waiting: taken, dropped: dropped.clone(), is_failing };
        let config = BatchConfigBuilder::default().with_max_queue_size(len_max).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        Self { processor, waiting, len_max, dropped }
    }
}

impl SpanProcessor for BoundedQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let room = |len: usize| (len < self.len_max).then_some(len + 1);
        if self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok() {
            self.processor.on_end(span);
        } else {
            self.dropped.increment(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}

/// Counts what the collector did not take. The log has the beginning and the end of that, not each attempt.
#[derive(Debug)]
struct Counting<E> {
    exporter: E,
    collector: String,
    waiting: Arc<AtomicUsize>,
    dropped: Counter,
    is_failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let len = batch.len();
        self.waiting.fetch_sub(len, Ordering::AcqRel);
        let collector = self.collector.as_str();
        match self.exporter.export(batch).await {
            Ok(()) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(collector, "the trace collector takes spans again");
                }
            }
            Err(error) => {
                self.dropped.increment(len as u64);
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(collector, %error, "the trace collector takes no spans; otel_spans_dropped_total counts them");
                }
            }
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use metrics::atomics::AtomicU64;
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    const LEN_MAX: usize = 4;

    /// Waits for a word before each export, and counts what comes; or fails.
    #[derive(Debug)]
    struct Collector {
        may_go_on: Mutex<Receiver<()>>,
        received: Arc<AtomicUsize>,
        is_failing: bool,
    }

    impl SpanExporter for Collector {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            // An error means that the test lets everything through.
            self.may_go_on.lock().expect("one thread").recv().unwrap_or_default();
            if self.is_failing {
                return Err(OTelSdkError::InternalFailure(String::from("it is away")));
            }
            self.received.fetch_add(batch.len(), Ordering::Relaxed);
            Ok(())
        }
    }

    /// Ends 100 spans while the collector hangs. Returns how many arrived in the end, and how many are counted as dropped.
    fn export_100(is_failing: bool) -> (usize, usize) {
        let (go_on, may_go_on) = channel();
        let (received, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let collector = Collector { may_go_on: Mutex::new(may_go_on), received: received.clone(), is_failing };
        let queue = BoundedQueue::of_len(collector, String::new(), Counter::from_arc(dropped.clone()), LEN_MAX);
        let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
        for _ in 0..100 {
            drop(provider.tracer("test").start("span"));
        }
        drop(go_on);
        provider.shutdown().expect("the collector goes on");
        (received.load(Ordering::Relaxed), usize::try_from(dropped.load(Ordering::Relaxed)).expect("few"))
    }

    #[test]
    fn what_does_not_fit_into_the_queue_is_dropped_and_counted() {
        let (received, dropped) = export_100(false);
        assert_eq!(received + dropped, 100);
        assert!((LEN_MAX..=2 * LEN_MAX).contains(&received), "one batch is under way, and one waits: {received}");
    }

    #[test]
    fn what_a_collector_does_not_take_is_counted() {
        assert_eq!(export_100(true), (0, 100));
    }
}
