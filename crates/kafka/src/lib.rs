//! Kafka as this project uses it: settings with their reasons, registry-framed Avro, consumers that say what they
//! own, transactions as values. Knows no business words.
//!
//! librdkafka's calls mostly block. What is here is therefore for plain threads, except where a function is `async`.

mod acl_list;
mod acls;
mod admin;
mod client_id;
mod client_log;
mod codec;
mod config;
mod consumer;
mod diagnosis;
mod error;
mod fenced;
mod instance;
mod lag;
mod membership;
mod metrics;
mod partition_batcher;
mod partitioner;
mod producer;
mod progress;
mod reader;
mod reconnect;
mod registry;
mod registry_args;
mod security;
mod tail_consumer;
mod throttle;
mod token;
mod topic_id;
mod trace_context;
mod transaction;

pub use acl_list::AclList;
pub use acls::{Acl, Operation, ResourceType};
pub use admin::{Admin, Difference, LogIdentity, PartitionReplicas, Settings, TopicArgs, TopicSpec, differences};
pub use codec::{Codec, DecodeError};
pub use config::{KafkaArgs, MemberArgs};
pub use consumer::{AssignmentEvent, GroupConsumer, LEAVE_TIMEOUT, OffsetReset, record_age};
pub use error::{Error, Recovery};
pub use fenced::FencedGuard;
pub use instance::Instance;
pub use lag::collect_lag;
pub use metrics::{ALL as METRICS, count_transaction, start_transactions};
pub use partition_batcher::PartitionBatcher;
pub use partitioner::partition_of;
pub use producer::{Producer, Record};
pub use progress::{FirstRecord, GroupProgress};
pub use rdkafka::Message;
pub use rdkafka::consumer::ConsumerGroupMetadata;
pub use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, Headers, OwnedHeaders};
pub use reader::TopicReader;
pub use registry::{COMPATIBILITY, Registry};
pub use registry_args::RegistryArgs;
pub use security::{KafkaSecurityArgs, SaslMechanism, Security};
pub use tail_consumer::TailConsumer;
pub use throttle::{Throttling, throttling};
pub use trace_context::{trace_headers, with_trace};
pub use transaction::{COMMIT_DEADLINE, Transaction, TransactionalProducer, WatchedRecord};
