//! Kafka as this project uses it: settings with their reasons, registry-framed Avro, consumers that say what they
//! own, transactions as values. Knows no business words.
//!
//! librdkafka's calls mostly block. What is here is therefore for plain threads, except where a function is `async`.

mod admin;
mod client_id;
mod codec;
mod config;
mod consumer;
mod error;
mod fenced;
mod follower;
mod instance;
mod lanes;
mod lifeline;
mod membership;
mod partitioner;
mod producer;
mod progress;
mod reader;
mod registry;
mod topic_id;
mod transaction;

pub use admin::{Admin, Copies, LogIdentity, TopicSpec};
pub use codec::{Codec, DecodeError};
pub use config::{KafkaArgs, MemberArgs, TopicArgs};
pub use consumer::{AssignmentEvent, GroupConsumer, StartAt, age_of};
pub use error::{Error, Recovery};
pub use fenced::FencedGuard;
pub use follower::Follower;
pub use instance::Instance;
pub use lanes::Lanes;
pub use partitioner::partition_of;
pub use producer::{Producer, Record};
pub use progress::GroupProgress;
pub use rdkafka::Message;
pub use rdkafka::consumer::ConsumerGroupMetadata;
pub use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, Headers, OwnedHeaders};
pub use reader::TopicReader;
pub use registry::Registry;
pub use transaction::{Transaction, TransactionalProducer};
