//! The names of attributes. Those of HTTP and databases are stable in OpenTelemetry's semantic conventions 1.36; those of messaging
//! are in development there, so this is the one place to change.

/// `http.request.method`.
pub const HTTP_METHOD: &str = "http.request.method";
/// `http.route`: the path with names in place of ids.
pub const HTTP_ROUTE: &str = "http.route";
/// `http.response.status_code`.
pub const HTTP_STATUS: &str = "http.response.status_code";
/// `network.protocol.version`.
pub const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
/// `url.scheme`.
pub const URL_SCHEME: &str = "url.scheme";
/// `error.type`: a word for the kind of error.
pub const ERROR_TYPE: &str = "error.type";

/// `messaging.system`.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// The value of [`MESSAGING_SYSTEM`].
pub const KAFKA: &str = "kafka";
/// `messaging.operation.name`, the first word of the span's name.
pub const MESSAGING_OPERATION: &str = "messaging.operation.name";
/// `messaging.operation.type`.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// `messaging.destination.name`: the topic.
pub const MESSAGING_TOPIC: &str = "messaging.destination.name";
/// `messaging.destination.partition.id`.
pub const MESSAGING_PARTITION: &str = "messaging.destination.partition.id";
/// `messaging.kafka.offset`.
pub const MESSAGING_OFFSET: &str = "messaging.kafka.offset";
/// `messaging.consumer.group.name`.
pub const MESSAGING_GROUP: &str = "messaging.consumer.group.name";
/// `messaging.batch.message_count`.
pub const MESSAGING_COUNT: &str = "messaging.batch.message_count";

/// `db.system.name`.
pub const DB_SYSTEM: &str = "db.system.name";
/// `db.operation.name`.
pub const DB_OPERATION: &str = "db.operation.name";
/// `db.collection.name`: the table.
pub const DB_TABLE: &str = "db.collection.name";
/// `db.operation.batch.size`: rows, if there are several.
pub const DB_BATCH_SIZE: &str = "db.operation.batch.size";

/// Where a record is: topic/partition/offset.
pub const POSITION: &str = "cart.position";
/// What became of a command: see [`outcome`].
pub const OUTCOME: &str = "cart.outcome";
/// Whether the record was processed before: its effect was there already.
pub const REDELIVERED: &str = "cart.redelivered";
/// The code of a problem, as in the last part of `type` in docs/api.md.
pub const PROBLEM: &str = "cart.problem";
/// `X-Request-Id`, as it is in the logs.
pub const REQUEST_ID: &str = "cart.request_id";

/// The values of [`OUTCOME`].
pub mod outcome {
    /// It was carried out.
    pub const ACCEPTED: &str = "accepted";
    /// A rule rejected it.
    pub const REJECTED: &str = "rejected";
    /// An earlier request with its idempotency key was decided before.
    pub const REPEATED: &str = "repeated";
    /// It was decided before, and left nothing: it was rejected, or was a repeat.
    pub const UNCHANGED: &str = "unchanged";
    /// It cannot be decided, and is on the topic of dead letters.
    pub const DEAD_LETTER: &str = "dead-letter";
    /// A projector passed over it (`cartctl skip`).
    pub const SKIPPED: &str = "skipped";
}
