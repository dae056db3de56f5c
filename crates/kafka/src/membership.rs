//! Whether a consumer is a member of its group. librdkafka knows it, its Rust wrapper (0.39) does not show it, so this one
//! module calls the C functions.
#![expect(unsafe_code, reason = "rdkafka 0.39 has no accessors for group metadata; what is made here is freed here")]

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

/// Whether the consumer has a member id and a generation.
///
/// It has lost them between the broker's answer that it was removed and the next poll, which reports the lost partitions.
/// A broker takes the offsets of a transaction without both from any client, so it would not reject a stale one.
pub(crate) fn is_member<C: ClientContext>(client: &Client<C>) -> bool {
    // SAFETY: the client outlives this function. The metadata is made here, checked, and destroyed after its last use; the
    // member id belongs to it.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(client.native_ptr());
        if metadata.is_null() {
            return false;
        }
        let id = sys::rd_kafka_consumer_group_metadata_member_id(metadata);
        let has_id = !id.is_null() && *id != 0;
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        has_id && generation >= 0
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it connects to nothing")]
    fn a_consumer_that_has_not_joined_is_no_member() {
        let consumer: BaseConsumer =
            ClientConfig::new().set("group.id", "none").set("bootstrap.servers", "127.0.0.1:1").create().expect("made");
        assert!(!is_member(consumer.client()));
    }
}
