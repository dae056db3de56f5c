//! Why a client does not reach its brokers, with the option to change.
//!
//! A request that fails says only 'timed out' or 'transport failure'. The reason is reported to the client's context, while the
//! client is polled, and of a certificate librdkafka says only that it could not be verified. So after a failed request
//! a client of its own connects for a moment, and listens; a rejected certificate is looked at with the same library.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openssl::ssl::{HandshakeError, SslConnector, SslFiletype, SslMethod};
use openssl::x509::X509VerifyResult;
use openssl::x509::store::X509StoreBuilder;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use service::certificate_advice;

use crate::KafkaArgs;
use crate::security::SaslMechanism;
use crate::token::TokenFile;

/// How long the client listens. Brokers reject within milliseconds; SCRAM takes some more.
const LISTEN: Duration = Duration::from_secs(2);

/// What librdkafka writes of a connection that the port has ended. Its hint at `security.protocol` is never part of the line.
const DISCONNECTED: &str = ": Disconnected";

/// Where a port ends the connection of a client that lacks TLS, or a user: before its first answer, or after that.
const EARLY_STATES: [&str; 2] = ["in state APIVERSION_QUERY", "in state UP"];

/// What librdkafka writes of a handshake that the port ends: it takes the client's first bytes for a request that is too long.
const PORT_WITHOUT_TLS: &str = "connecting to a PLAINTEXT broker listener?";

/// With what librdkafka begins the time and the state of an attempt.
const AFTER: &str = " (after ";

/// How long it waits at a time.
const POLL: Duration = Duration::from_millis(50);

/// The maximum wait for a broker's certificate.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Collects what librdkafka reports.
struct Listener {
    token: TokenFile,
    reports: Mutex<Vec<(RDKafkaErrorCode, String)>>,
}

impl ClientContext for Listener {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// The client that failed logs the same. That a port has TLS and the client has not is no error to librdkafka, only a line.
    fn log(&self, _: RDKafkaLogLevel, _: &str, text: &str) {
        if is_ended_early(text) {
            self.note(RDKafkaErrorCode::BrokerTransportFailure, text);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.note(code, reason);
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.token.read()
    }
}

impl ConsumerContext for Listener {}

impl Listener {
    fn note(&self, code: RDKafkaErrorCode, reason: &str) {
        // Depending on where a handshake fails, librdkafka calls the same failure one of the transport.
        let code = if reason.contains("SSL routines") { RDKafkaErrorCode::SSL } else { code };
        // The time and the state of the attempt: an error that stays the same is logged once.
        let reason = reason.rsplit_once(AFTER).map_or(reason, |(start, _)| start);
        self.reports().push((code, reason.to_owned()));
    }

    fn reports(&self) -> MutexGuard<'_, Vec<(RDKafkaErrorCode, String)>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a line says that the port has ended a connection at its beginning.
fn is_ended_early(text: &str) -> bool {
    text.rsplit_once(AFTER).is_some_and(|(start, state)| {
        start.contains(DISCONNECTED) && EARLY_STATES.iter().any(|early| state.contains(early))
    })
}

/// The report that says that a setting is wrong, and not only that a broker is away.
fn decisive(reports: &[(RDKafkaErrorCode, String)]) -> Option<&(RDKafkaErrorCode, String)> {
    let codes = [RDKafkaErrorCode::Authentication, RDKafkaErrorCode::SSL];
    reports.iter().find(|(code, _)| codes.contains(code))
}

/// The second report of a connection that the port has ended: most likely only one side wants TLS or a user. A broker that stops ends
/// one. It is not decisive: a proxy without its broker does the same.
fn ended(reports: &[(RDKafkaErrorCode, String)]) -> Option<&(RDKafkaErrorCode, String)> {
    let is_ended = |(code, reason): &&(RDKafkaErrorCode, String)| {
        *code == RDKafkaErrorCode::BrokerTransportFailure && reason.contains(DISCONNECTED)
    };
    reports.iter().filter(is_ended).nth(1)
}

/// Why no broker answers.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    /// Whether a wait would not change it: a setting or a certificate is wrong.
    pub(crate) is_decisive: bool,
    pub(crate) reason: String,
}

/// Why no broker answers, where that can be found out within about two seconds.
pub(crate) fn diagnose(args: &KafkaArgs) -> Option<Diagnosis> {
    let listener = Listener { token: args.security.token(), reports: Mutex::default() };
    let consumer: BaseConsumer<Listener> = args.client().with_information().create_with_context(listener).ok()?;
    let deadline = Instant::now() + LISTEN;
    while Instant::now() < deadline {
        drop(consumer.poll(POLL));
        let reports = consumer.context().reports();
        if let Some((code, reason)) = decisive(&reports) {
            return Some(Diagnosis { is_decisive: true, reason: explain(args, *code, reason) });
        }
        if let Some((code, reason)) = ended(&reports) {
            return Some(Diagnosis { is_decisive: false, reason: explain(args, *code, reason) });
        }
    }
    // A refused connection, for example.
    let reports = consumer.context().reports();
    let report = reports.iter().find(|(code, _)| *code != RDKafkaErrorCode::AllBrokersDown)?;
    let (code, reason) = report;
    // Not decisive: the name of a container exists once it runs.
    let is_name = *code == RDKafkaErrorCode::Resolve;
    Some(Diagnosis { is_decisive: false, reason: if is_name { explain(args, *code, reason) } else { reason.clone() } })
}

fn explain(args: &KafkaArgs, code: RDKafkaErrorCode, reason: &str) -> String {
    let has_token = args.security.kafka_sasl_mechanism == SaslMechanism::OAuthBearer;
    let certificate = (code == RDKafkaErrorCode::SSL).then(|| rejected_certificate(args)).flatten();
    let advice = if let Some(certificate) = certificate {
        certificate
    } else {
        String::from(if code == RDKafkaErrorCode::SSL {
            "no TLS connection: check --kafka-ca-cert, --kafka-client-cert and --kafka-client-key, and that the port has TLS \
             (--kafka-security)"
        } else if code == RDKafkaErrorCode::Authentication && has_token {
            "the brokers do not accept the token: check --kafka-token-file"
        } else if code == RDKafkaErrorCode::Authentication {
            "the brokers do not accept the user: check --kafka-user, --kafka-password-file (KAFKA_PASSWORD) and \
             --kafka-sasl-mechanism"
        } else if code == RDKafkaErrorCode::Resolve {
            "check the host names in --kafka-bootstrap-servers"
        } else if reason.contains(PORT_WITHOUT_TLS) {
            "the port ends each handshake. If a broker answers there, the port has no TLS: check --kafka-security and the ports in \
             --kafka-bootstrap-servers"
        } else {
            "the port ends each connection. If a broker answers there, the port wants TLS or a user: check --kafka-security"
        })
    };
    format!("{advice} ({reason})")
}

/// Why the first broker's certificate that fails verification is rejected.
fn rejected_certificate(args: &KafkaArgs) -> Option<String> {
    args.kafka_bootstrap_servers.split(',').find_map(|server| {
        // A protocol may stand before the name, as in SASL_SSL://kafka:9093.
        let server = server.trim().rsplit("://").next()?;
        let host = server.rsplit_once(':')?.0.trim_start_matches('[').trim_end_matches(']');
        let result = verify(args, server, host)?;
        let name_advice = format!(
            "it is not for {host}: --kafka-bootstrap-servers and the brokers' advertised.listeners must have the names of \
             the certificate"
        );
        let advice = certificate_advice(result.as_raw(), "--kafka-ca-cert", &name_advice);
        Some(format!("the certificate of {server} was rejected, {}: {advice}", result.error_string()))
    })
}

/// How the verification of a server's certificate ends; none if it ends well, or does not come so far.
fn verify(args: &KafkaArgs, server: &str, host: &str) -> Option<X509VerifyResult> {
    let address = server.to_socket_addrs().ok()?.next()?;
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).ok()?;
    let mut connector = SslConnector::builder(SslMethod::tls_client()).ok()?;
    if let Some(authorities) = &args.security.kafka_ca_cert {
        // librdkafka trusts these alone, the builder the system's too.
        connector.set_cert_store(X509StoreBuilder::new().ok()?.build());
        connector.set_ca_file(authorities).ok()?;
    }
    if let (Some(certificate), Some(key)) = (&args.security.kafka_client_cert, &args.security.kafka_client_key) {
        connector.set_certificate_chain_file(certificate).ok()?;
        connector.set_private_key_file(key, SslFiletype::PEM).ok()?;
    }
    let Err(HandshakeError::Failure(failed)) = connector.build().connect(host, stream) else { return None };
    Some(failed.ssl().verify_result()).filter(|result| *result != X509VerifyResult::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As librdkafka writes them.
    const TO_PLAINTEXT: &str = "127.0.0.1:9092/bootstrap: SSL handshake failed: Disconnected: connection reset by peer: \
        connecting to a PLAINTEXT broker listener?";
    const TO_TLS: &str = "[thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/bootstrap: Disconnected: connection \
        closed by peer: receive 0 after POLLIN (after 3ms in state APIVERSION_QUERY, 1 identical error(s) suppressed)";
    const TO_USERS: &str = "[thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/1: Disconnected: connection closed by \
        peer: receive 0 after POLLIN (after 2ms in state UP)";
    const IDLE: &str =
        "[thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/1: Receive failed: timed out (after 9ms in state UP)";
    const AWAY: &str = "127.0.0.1:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused";

    #[test]
    fn a_port_that_wants_or_has_no_tls_is_named_when_it_ends_a_second_connection() {
        let args = KafkaArgs::plain("127.0.0.1:9092", "http://127.0.0.1:8081");
        for (text, advice) in [
            (TO_PLAINTEXT, "the port has no TLS: check --kafka-security and the ports in --kafka-bootstrap-servers ("),
            (TO_TLS, "the port wants TLS or a user: check --kafka-security ("),
            (TO_USERS, "the port wants TLS or a user: check --kafka-security ("),
        ] {
            let report = |text: &str| {
                let reason = text.rsplit_once(AFTER).map_or(text, |(start, _)| start);
                (RDKafkaErrorCode::BrokerTransportFailure, reason.to_owned())
            };
            assert_eq!(ended(&[report(text)]), None, "a broker that stops ends one too");
            assert_eq!(ended(&[report(text), report(AWAY)]), None, "{text}");
            let reports = [report(text), report(AWAY), report(text)];
            assert_eq!(decisive(&reports), None, "a proxy without its broker does the same");
            let (code, reason) = ended(&reports).expect("the second one");
            let explained = explain(&args, *code, reason);
            assert!(explained.contains(advice), "{explained}");
        }
    }

    #[test]
    fn only_a_connection_that_was_ended_at_its_beginning_counts() {
        assert!(is_ended_early(TO_TLS) && is_ended_early(TO_USERS));
        assert!(!is_ended_early(IDLE) && !is_ended_early(AWAY) && !is_ended_early(TO_PLAINTEXT));
    }
}
