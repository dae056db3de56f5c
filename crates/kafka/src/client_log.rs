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

/// An error of a client. The failing call returns it too; only this one has the reason.
pub(crate) fn error(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        // To librdkafka the end of a partition is one too.
        Some(RDKafkaErrorCode::PartitionEOF) => {}
        Some(RDKafkaErrorCode::Fatal) => tracing::error!(%error, reason, "a Kafka client ended with a fatal error"),
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
