//! The spans of requests and records.

use std::fmt::{self, Display};

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanBuilder, SpanKind};

use crate::names::{
    ERROR_TYPE, HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS, KAFKA, MESSAGING_COUNT, MESSAGING_GROUP, MESSAGING_OFFSET,
    MESSAGING_OPERATION, MESSAGING_OPERATION_TYPE, MESSAGING_PARTITION, MESSAGING_SYSTEM, MESSAGING_TOPIC,
    NETWORK_PROTOCOL_VERSION, POSITION, PROBLEM, REQUEST_ID, URL_SCHEME,
};
use crate::{Span, Trace, TraceHeaders};

/// What is known of a request before it is handled. Its path is not recorded: it has the cart's id.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a str,
    /// The path with names in place of ids, if it is one of the API.
    pub route: Option<&'static str>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The version of HTTP.
    pub version: &'static str,
    /// Its id in the logs.
    pub request_id: &'a str,
}

/// Methods by their names, since a client may send any word.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

/// Begins the span of a request.
#[must_use]
pub fn serve(headers: TraceHeaders<'_>, request: RequestHead<'_>) -> Trace {
    let RequestHead { method, route, scheme, version, request_id } = request;
    Trace::begin(headers, || {
        let known = METHODS.contains(&method);
        let word = if known { method } else { "HTTP" };
        let name = route.map_or_else(|| word.to_owned(), |route| format!("{word} {route}"));
        let method = if known { method.to_owned() } else { String::from("_OTHER") };
        let mut attributes = vec![
            KeyValue::new(HTTP_METHOD, method),
            KeyValue::new(URL_SCHEME, scheme),
            KeyValue::new(NETWORK_PROTOCOL_VERSION, version),
            KeyValue::new(REQUEST_ID, request_id.to_owned()),
        ];
        attributes.extend(route.map(|route| KeyValue::new(HTTP_ROUTE, route)));
        builder(name, SpanKind::Server, attributes)
    })
}

/// Begins the span of a record that is appended to a topic because of a request with `headers`.
#[must_use]
pub fn append(headers: TraceHeaders<'_>, topic: &str) -> Trace {
    Trace::begin(headers, || sending(topic))
}

/// The place of a record in the log.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The topic's full name.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// As in `cart.position`: topic/partition/offset.
impl Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// Begins the span of a record that consumer group `group` processes.
#[must_use]
pub fn process(headers: TraceHeaders<'_>, place: Place<'_>, group: &str) -> Trace {
    Trace::begin(headers, || {
        let mut attributes = messaging("process", place.topic);
        attributes.push(KeyValue::new(MESSAGING_GROUP, group.to_owned()));
        attributes.extend(position(place));
        builder(format!("process {}", place.topic), SpanKind::Consumer, attributes)
    })
}

fn sending(topic: &str) -> SpanBuilder {
    builder(format!("send {topic}"), SpanKind::Producer, messaging("send", topic))
}

pub(crate) fn builder(name: String, kind: SpanKind, attributes: Vec<KeyValue>) -> SpanBuilder {
    SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes)
}

pub(crate) fn messaging(operation: &'static str, topic: &str) -> Vec<KeyValue> {
    // The conventions have a few types; a commit is that of records that are sent.
    let operation_type = if operation == "process" { operation } else { "send" };
    vec![
        KeyValue::new(MESSAGING_SYSTEM, KAFKA),
        KeyValue::new(MESSAGING_OPERATION, operation),
        KeyValue::new(MESSAGING_OPERATION_TYPE, operation_type),
        KeyValue::new(MESSAGING_TOPIC, topic.to_owned()),
    ]
}

fn position(place: Place<'_>) -> [KeyValue; 3] {
    [
        KeyValue::new(MESSAGING_PARTITION, place.partition.to_string()),
        KeyValue::new(MESSAGING_OFFSET, place.offset),
        KeyValue::new(POSITION, place.to_string()),
    ]
}

impl Trace {
    /// Begins the span of a record that is sent to a topic because of this.
    #[must_use]
    pub fn send(self, topic: &str) -> Self {
        match &self {
            Self::Recorded(span) => span.send(topic),
            Self::None | Self::Passed(_) => self,
        }
    }
}

impl Span {
    /// Begins the span of a record that is sent to a topic because of this.
    #[must_use]
    pub fn send(&self, topic: &str) -> Trace {
        self.child(sending(topic))
    }

    /// The sent record, or the first of several, is in the log. Ends the span.
    pub fn sent(&self, place: Place<'_>, records: usize) {
        for KeyValue { key, value, .. } in position(place) {
            self.set_owned(key, value);
        }
        if records > 1 {
            self.set(MESSAGING_COUNT, i64::try_from(records).unwrap_or(i64::MAX));
        }
        self.end();
    }

    /// Waits until its record is in the log, at the offset of the result, and ends the span.
    ///
    /// # Errors
    /// As `delivery`.
    pub async fn sending<E: Display>(
        self,
        delivery: impl Future<Output = Result<i64, E>>,
        topic: String,
        partition: i32,
    ) -> Result<i64, E> {
        let result = delivery.await;
        match &result {
            Ok(offset) => self.sent(Place { topic: &topic, partition, offset: *offset }, 1),
            Err(error) => self.fail(error),
        }
        result
    }

    /// The request is answered. Ends the span.
    pub fn answered(&self, status: u16, problem: Option<&'static str>) {
        self.set(HTTP_STATUS, i64::from(status));
        if let Some(problem) = problem {
            self.set(PROBLEM, problem);
        }
        // What a client did wrong is no failure of the service.
        if status < 500 {
            return self.end();
        }
        self.set(ERROR_TYPE, problem.map_or_else(|| status.to_string(), str::to_owned));
        self.fail("");
    }
}
