//! What is parked: carts, of which Kafka knows, and rows of the read tables.

use std::time::Duration;

use cart::contract::Contract as _;
use cart::{CartId, CartParked, ParkedCart};
use chrono::{DateTime, Utc};
use kafka::{Admin, KafkaArgs, Registry};
use parking::ParkedCarts;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::operate::time;
use crate::parked_rows::ListedRow;

/// The status of the groups is shown without the parked carts while a transaction with a marker is open for so long.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// A parked cart. Its fields are named as those of `cartctl parked --json`, which also counts the commands that wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedCart {
    pub cart_id: CartId,
    /// The partition of cart-commands.
    pub partition: i32,
    pub state: &'static str,
    pub since: DateTime<Utc>,
    pub reason: String,
    /// The offset on cart-commands before which its commands are decided.
    pub next_offset: i64,
}

impl ListedCart {
    fn of(partition: i32, cart_id: CartId, cart: &ParkedCart) -> Self {
        Self {
            cart_id,
            partition,
            state: cart.state.name(),
            since: cart.since,
            reason: cart.reason.clone(),
            next_offset: cart.next_position.offset(),
        }
    }
}

/// Reads which carts are parked, over connections that stay.
pub(super) struct Carts {
    kafka: KafkaArgs,
    /// With the number of partitions. Made by the first read.
    reader: Option<(ParkedCarts, i32)>,
}

impl Carts {
    pub(super) fn new(kafka: &KafkaArgs) -> Self {
        Self { kafka: kafka.clone(), reader: None }
    }

    /// The parked carts, by partition. Blocks while a transaction with a marker is open, for [`SETTLE_TIMEOUT`] at most.
    pub(super) async fn read(&mut self, admin: &Admin) -> anyhow::Result<Vec<ListedCart>> {
        let (mut reader, partitions) = match self.reader.take() {
            Some(open) => open,
            None => self.open(admin).await?,
        };
        let listed = block_in_place(|| {
            let mut listed = Vec::new();
            for partition in 0..partitions {
                let found = reader.read(partition)?;
                listed.extend(found.carts.iter().map(|(cart_id, cart)| ListedCart::of(partition, *cart_id, cart)));
            }
            Ok::<_, kafka::Error>(listed)
        });
        // Also after an error: it knows the partitions that it has read.
        self.reader = Some((reader, partitions));
        let mut listed = listed?;
        listed.sort_unstable_by_key(|cart| (cart.partition, cart.cart_id));
        Ok(listed)
    }

    async fn open(&self, admin: &Admin) -> anyhow::Result<(ParkedCarts, i32)> {
        let codec = parking::codec(&Registry::new(&self.kafka)?).await?;
        let partitions = block_in_place(|| admin.partitions(&self.kafka.prefixed(CartParked::TOPIC)))?;
        let reader = ParkedCarts::new(&self.kafka, codec, Handle::current())?.with_settle_timeout(SETTLE_TIMEOUT);
        Ok((reader, partitions))
    }
}

/// What there is to say of parked carts and rows; nothing of those that are not known.
pub(super) fn lines(carts: Option<&[ListedCart]>, rows: Option<&[ListedRow]>) -> Vec<String> {
    if carts.is_some_and(<[_]>::is_empty) && rows.is_some_and(<[_]>::is_empty) {
        return vec![String::from("no cart and no row is parked")];
    }
    let carts = carts.map(of_carts);
    let rows = rows.map(of_rows).unwrap_or_default();
    carts.into_iter().chain(rows).collect()
}

fn of_carts(carts: &[ListedCart]) -> String {
    let Some(since) = carts.iter().map(|cart| cart.since).min().map(time) else {
        return String::from("no cart is parked");
    };
    match carts.len() {
        1 => format!("1 cart is parked since {since}: cartctl parked"),
        count => format!("{count} carts are parked, the oldest since {since}: cartctl parked"),
    }
}

/// A line for each projector, whose rows follow each other.
fn of_rows(rows: &[ListedRow]) -> Vec<String> {
    if rows.is_empty() {
        return vec![String::from("no row is parked")];
    }
    let of_projector = |rows: &[ListedRow]| {
        let projector = rows.first().map(|row| row.projector.as_str()).unwrap_or_default();
        let are = if rows.len() == 1 { "row is" } else { "rows are" };
        format!("{projector}: {} {are} parked: cartctl parked rows", rows.len())
    };
    rows.chunk_by(|one, next| one.projector == next.projector).map(of_projector).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cart_id, vendor_id};

    fn cart(name: &str, minute: i64) -> ListedCart {
        ListedCart {
            cart_id: cart_id(name).into(),
            partition: 1,
            state: "parked",
            since: DateTime::UNIX_EPOCH + chrono::Duration::minutes(minute),
            reason: String::from("rule-panicked"),
            next_offset: 77,
        }
    }

    fn row(projector: &str) -> ListedRow {
        ListedRow {
            projector: projector.to_owned(),
            vendor_id: vendor_id("V").into(),
            row: String::from("2026-03"),
            partition: 3,
            state: "parked",
            since: DateTime::UNIX_EPOCH,
            reason: String::from("row-overflows: full"),
            next_offset: 77,
        }
    }

    #[test]
    fn what_is_parked_is_counted_with_the_verb_that_lists_it() {
        let carts = [cart("A", 9), cart("B", 4), cart("C", 7)];
        let rows = [row("popular-items"), row("popular-items"), row("vendor-billing-g2")];
        let shown = lines(Some(&carts), Some(&rows));
        let expected = [
            "3 carts are parked, the oldest since 1970-01-01T00:04:00Z: cartctl parked",
            "popular-items: 2 rows are parked: cartctl parked rows",
            "vendor-billing-g2: 1 row is parked: cartctl parked rows",
        ];
        assert_eq!(shown, expected);
        let shown = lines(Some(&carts[..1]), Some(&[]));
        assert_eq!(shown, ["1 cart is parked since 1970-01-01T00:09:00Z: cartctl parked", "no row is parked"]);
    }

    #[test]
    fn that_nothing_is_parked_is_said_where_it_is_known() {
        assert_eq!(lines(Some(&[]), Some(&[])), ["no cart and no row is parked"]);
        assert_eq!(lines(Some(&[]), None), ["no cart is parked"]);
        assert_eq!(lines(None, Some(&[])), ["no row is parked"]);
        assert_eq!(lines(None, None), [""; 0]);
    }
}
