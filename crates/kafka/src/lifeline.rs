//! A client's way back to the brokers.
//!
//! The first answers of a broker that comes back, when all were away, may name no broker at all. librdkafka (from 2.10 on) then
//! forgets every broker that it knew, those of `bootstrap.servers` too, and such a client never connects again
//! (<https://github.com/confluentinc/librdkafka/issues/5301>). So after all brokers were away it is told of them again. The Rust wrapper
//! has no call for that.
#![expect(unsafe_code, reason = "rdkafka 0.39 has no brokers_add; the client and the text outlive the call")]

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka_sys as sys;

use crate::KafkaArgs;

/// When a client is told, after the last time that it has said that all brokers were away. Known brokers are not added again.
const TELLINGS: [Duration; 4] =
    [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(45)];

/// Notes when all brokers are away. Clones share what they note. It is a client's context, or part of it.
#[derive(Debug, Clone)]
pub(crate) struct Lifeline {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bootstrap_servers: CString,
    /// Looked at before each record, so it costs next to nothing.
    is_due: AtomicBool,
    away: Mutex<Option<Away>>,
}

#[derive(Debug)]
struct Away {
    since: Instant,
    told: usize,
}

impl Lifeline {
    pub(crate) fn of(args: &KafkaArgs) -> Self {
        // A text with a zero byte names no broker, as the client's own start has said.
        let bootstrap_servers = CString::new(args.kafka_bootstrap_servers.as_str()).unwrap_or_default();
        Self { inner: Arc::new(Inner { bootstrap_servers, is_due: AtomicBool::default(), away: Mutex::default() }) }
    }

    /// Takes note of what a client says of itself.
    pub(crate) fn note(&self, error: &KafkaError) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.away() = Some(Away { since: Instant::now(), told: 0 });
            self.inner.is_due.store(true, Ordering::Relaxed);
        }
    }

    /// Tells the client of the brokers, if it is time to. To be called again and again.
    pub(crate) fn keep<C: ClientContext>(&self, client: &Client<C>) {
        if self.inner.is_due.load(Ordering::Relaxed) && self.is_time() {
            self.tell(client);
        }
    }

    /// Tells the client of the brokers.
    pub(crate) fn tell<C: ClientContext>(&self, client: &Client<C>) {
        // SAFETY: both outlive the call, which copies the text.
        unsafe {
            sys::rd_kafka_brokers_add(client.native_ptr(), self.inner.bootstrap_servers.as_ptr());
        }
    }

    fn is_time(&self) -> bool {
        let mut away = self.away();
        let Some(Away { since, told }) = away.as_mut() else { return false };
        if TELLINGS.get(*told).is_some_and(|time| since.elapsed() < *time) {
            return false;
        }
        *told += 1;
        if *told >= TELLINGS.len() {
            *away = None;
            self.inner.is_due.store(false, Ordering::Relaxed);
        }
        true
    }

    fn away(&self) -> std::sync::MutexGuard<'_, Option<Away>> {
        self.inner.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Lifeline {
    fn error(&self, error: KafkaError, reason: &str) {
        self.note(&error);
        tracing::error!(%error, reason, "a Kafka client");
    }
}

impl ConsumerContext for Lifeline {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_time_some_times_after_all_were_away() {
        let args = KafkaArgs {
            kafka_bootstrap_servers: String::from("127.0.0.1:9092"),
            kafka_properties: Vec::new(),
            schema_registry_url: String::new(),
            topic_prefix: String::new(),
        };
        let lifeline = Lifeline::of(&args);
        lifeline.note(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure));
        assert!(!lifeline.is_time());
        lifeline.note(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown));
        assert!(!lifeline.is_time(), "not at once");
        for (told, time) in TELLINGS.into_iter().enumerate() {
            *lifeline.away() = Instant::now().checked_sub(time).map(|since| Away { since, told });
            assert!(lifeline.is_time());
        }
        assert!(!lifeline.inner.is_due.load(Ordering::Relaxed), "it is over");
    }
}
