//! Reconnects a client after all brokers were down, and hands it its token.
//!
//! The first metadata of a broker that restarts may list no broker. librdkafka (from 2.10 on) then forgets every broker, those
//! of `bootstrap.servers` too, and never connects again (<https://github.com/confluentinc/librdkafka/issues/5301>). So the bootstrap
//! servers are added again. The Rust wrapper has no call for that.
#![expect(unsafe_code, reason = "rdkafka 0.39 has no brokers_add; the client and the text outlive the call")]

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka_sys as sys;

use crate::token::TokenFile;
use crate::{KafkaArgs, client_log};

/// When the brokers are added again, after the last report that all are down. librdkafka ignores known brokers.
const READD_AFTER: [Duration; 4] =
    [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(45)];

/// Notes when all brokers are down. Clones share that. It is a client's context, or part of it.
#[derive(Debug, Clone)]
pub(crate) struct BootstrapReconnect {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bootstrap_servers: CString,
    token: TokenFile,
    /// Read before each record, so it is an atomic.
    is_due: AtomicBool,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    readded: usize,
}

impl BootstrapReconnect {
    pub(crate) fn of(args: &KafkaArgs) -> Self {
        // A text with a zero byte names no broker, as the client's own start has said.
        let bootstrap_servers = CString::new(args.kafka_bootstrap_servers.as_str()).unwrap_or_default();
        Self {
            inner: Arc::new(Inner {
                bootstrap_servers,
                token: args.security.token(),
                is_due: AtomicBool::default(),
                outage: Mutex::default(),
            }),
        }
    }

    /// Notes an error that the client reports.
    pub(crate) fn note(&self, error: &KafkaError) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.outage() = Some(Outage { since: Instant::now(), readded: 0 });
            self.inner.is_due.store(true, Ordering::Relaxed);
        }
    }

    /// Adds the brokers again if that is due. Call it often: with every poll.
    pub(crate) fn keep<C: ClientContext>(&self, client: &Client<C>) {
        if self.inner.is_due.load(Ordering::Relaxed) && self.is_time() {
            self.readd_brokers(client);
        }
    }

    /// Adds the bootstrap servers to the client.
    pub(crate) fn readd_brokers<C: ClientContext>(&self, client: &Client<C>) {
        // SAFETY: both outlive the call, which copies the text.
        unsafe {
            sys::rd_kafka_brokers_add(client.native_ptr(), self.inner.bootstrap_servers.as_ptr());
        }
    }

    fn is_time(&self) -> bool {
        let mut outage = self.outage();
        let Some(Outage { since, readded }) = outage.as_mut() else { return false };
        if READD_AFTER.get(*readded).is_some_and(|time| since.elapsed() < *time) {
            return false;
        }
        *readded += 1;
        if *readded >= READD_AFTER.len() {
            *outage = None;
            self.inner.is_due.store(false, Ordering::Relaxed);
        }
        true
    }

    fn outage(&self) -> std::sync::MutexGuard<'_, Option<Outage>> {
        self.inner.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for BootstrapReconnect {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client_log::line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(&error);
        client_log::error(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.inner.token.read()
    }
}

impl ConsumerContext for BootstrapReconnect {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readds_brokers_after_all_were_down() {
        let reconnect = BootstrapReconnect::of(&KafkaArgs::plain("127.0.0.1:9092", ""));
        reconnect.note(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure));
        assert!(!reconnect.is_time());
        reconnect.note(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown));
        assert!(!reconnect.is_time(), "not at once");
        for (readded, time) in READD_AFTER.into_iter().enumerate() {
            *reconnect.outage() = Instant::now().checked_sub(time).map(|since| Outage { since, readded });
            assert!(reconnect.is_time());
        }
        assert!(!reconnect.inner.is_due.load(Ordering::Relaxed), "it is over");
    }
}
