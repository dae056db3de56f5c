//! Another try: a request on `cart-parked`, which the owner of the partition follows.

use std::time::Duration;

use cart::contract::Contract as _;
use cart::{CartId, CartParked, ParkedEntry, retry_key};
use chrono::Utc;
use kafka::{Error, KafkaArgs, Producer, Record, Registry};

/// How long a request is tried to be delivered. An operator waits for it; the live page for less than 20 s (crates/console/src/actions.rs).
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests another try of parked carts, each in its partition, and waits until the requests are in the log.
///
/// # Errors
/// If one could not be delivered; others may have been.
pub async fn request_retry(kafka: &KafkaArgs, carts: &[(i32, CartId)], by: &str) -> Result<(), Error> {
    let codec = crate::codec(&Registry::new(kafka)?).await?;
    let producer = Producer::durable_within(kafka, &kafka.prefixed(CartParked::TOPIC), DELIVERY_TIMEOUT)?;
    let mut deliveries = Vec::with_capacity(carts.len());
    for (partition, cart_id) in carts {
        fail_points::crash_point("retry-before-request");
        let entry = ParkedEntry::RetryRequested { by: by.to_owned(), requested_at: Utc::now() };
        let value = codec.encode(&CartParked { cart_id: *cart_id, entry })?;
        let key = Some(retry_key(*cart_id).into_bytes());
        deliveries.push(producer.send(&Record {
            partition: Some(*partition),
            key,
            value: Some(value),
            headers: None,
        })?);
    }
    for delivery in deliveries {
        // If the producer has ended, the reason of that says more, such as which grant is missing.
        delivery.await.map_err(|error| producer.check().err().unwrap_or(error))?;
    }
    fail_points::crash_point("retry-after-requests");
    Ok(())
}
