//! What librdkafka reports, as log lines with the levels that a person on call would choose.
//!
//! librdkafka calls a lost connection an error, but reconnects by itself. So what it recovers from is a warning here. Only what
//! ends its client is an error.

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::token::TokenFile;

/// Lines on lost connections: [`error`] gets the same.
const REPORTED_AS_ERROR: [&str; 2] = ["FAIL", "ERROR"];

/// A line of librdkafka's own log. Its facility is a short code such as `REQTMOUT`.
pub(crate) fn line(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, text, "a line of librdkafka");
        }
        RDKafkaLogLevel::Error if REPORTED_AS_ERROR.contains(&facility) => {
            tracing::debug!(target: "librdkafka", facility, text, "a line of librdkafka");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", facility, text, "a line of librdkafka");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, text, "a line of librdkafka");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, text, "a line of librdkafka"),
    }
}

/// An error of a client. The failing call returns it too; only this one has the reason. If it has ended the client, [`line`] gets
/// that as well: the code here is that of the cause.
pub(crate) fn error(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        // To librdkafka the end of a partition is one too.
        Some(RDKafkaErrorCode::PartitionEOF) => {}
        Some(_) | None => tracing::warn!(%error, reason, "a Kafka client reports an error; it is retried"),
    }
}

/// The context of a client that only reports.
#[derive(Debug, Clone)]
pub(crate) struct Reporting {
    token: TokenFile,
}

impl Reporting {
    pub(crate) fn new(token: TokenFile) -> Self {
        Self { token }
    }
}

/// A consumer that joins no group and is asked questions only.
pub(crate) type PlainConsumer = BaseConsumer<Reporting>;

impl ClientContext for Reporting {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self::error(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.token.read()
    }
}

impl ConsumerContext for Reporting {}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[expect(unsafe_code, reason = "rdkafka has no call that ends a client as an error would; client and text outlive it")]
mod tests {
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use rdkafka::message::DeliveryResult;
    use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
    use rdkafka_sys as sys;

    use super::*;
    use crate::KafkaArgs;

    #[derive(Default)]
    struct Lines(Mutex<Vec<(RDKafkaLogLevel, String)>>);

    impl ClientContext for Lines {
        const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

        fn log(&self, level: RDKafkaLogLevel, _: &str, text: &str) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((level, text.to_owned()));
        }
    }

    impl ProducerContext for Lines {
        type DeliveryOpaque = ();

        fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
    }

    #[test]
    fn the_end_of_a_client_is_one_line_of_the_highest_level() {
        let producer: BaseProducer<Lines> =
            KafkaArgs::plain("127.0.0.1:1", "").producer().create_with_context(Lines::default()).unwrap();
        let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        // SAFETY: both outlive the call, which copies the text.
        unsafe {
            sys::rd_kafka_test_fatal_error(producer.client().native_ptr(), code, c"no grant".as_ptr());
        }
        producer.poll(Duration::from_millis(200));
        let lines = producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ends: Vec<_> = lines.iter().filter(|(_, text)| text.contains("no grant")).collect();
        assert!(matches!(ends[..], [(RDKafkaLogLevel::Emerg, _)]), "{lines:?}");
    }
}
