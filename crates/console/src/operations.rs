//! What keeps groups and carts, for the page: pauses and skips from `cart-control`, parked carts from `cart-parked`.

use std::cmp::Reverse;

use cart::{CartId, ParkedCart};
use control::{Controls, Entry};
use serde::Serialize;

/// How many pauses, skips and parked carts are listed, of each kind. More are counted.
const LISTED: usize = 10;

/// Who has wanted something, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Act {
    by: String,
    at_ms: i64,
    reason: String,
}

impl Act {
    fn of(entry: &Entry) -> Self {
        let record = &entry.record;
        Self { by: record.by.clone(), at_ms: record.at.timestamp_millis(), reason: record.reason.clone() }
    }
}

/// A group, or one of its partitions, that applies nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pause {
    group: String,
    /// `None`: all.
    partition: Option<i32>,
    before_offset: Option<i64>,
    #[serde(flatten)]
    act: Act,
}

/// A record that a group goes past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Skip {
    group: String,
    /// As `topic/partition/offset`.
    record: String,
    #[serde(flatten)]
    act: Act,
}

/// A cart whose commands wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Parked {
    cart_id: CartId,
    /// Whether it waits for an operator, or is tried again.
    state: &'static str,
    since_ms: i64,
    reason: String,
}

/// All that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Operations {
    /// The newest ones.
    pauses: Vec<Pause>,
    pauses_count: usize,
    /// The newest ones.
    skips: Vec<Skip>,
    skips_count: usize,
    /// The oldest ones.
    parked: Vec<Parked>,
    parked_count: usize,
    /// Why nothing is known now.
    unknown: Option<String>,
}

impl Operations {
    pub(crate) fn new(controls: &Controls, mut parked: Vec<(CartId, ParkedCart)>) -> Self {
        let pauses = controls.pauses().map(|(group, partition, pause)| Pause {
            group: group.to_owned(),
            partition,
            before_offset: pause.before,
            act: Act::of(pause.entry),
        });
        let skips = controls.skips().map(|skip| Skip {
            group: skip.group.to_owned(),
            record: format!("{}/{}/{}", skip.topic, skip.partition, skip.offset),
            act: Act::of(skip.entry),
        });
        let (pauses, pauses_count) = newest(pauses, |pause| pause.act.at_ms);
        let (skips, skips_count) = newest(skips, |skip| skip.act.at_ms);
        let parked_count = parked.len();
        parked.sort_by_key(|(cart_id, cart)| (cart.since, *cart_id));
        let listed = parked.into_iter().take(LISTED).map(|(cart_id, cart)| Parked {
            cart_id,
            state: cart.state.name(),
            since_ms: cart.since.timestamp_millis(),
            reason: cart.reason,
        });
        let parked = listed.collect();
        Self { pauses, pauses_count, skips, skips_count, parked, parked_count, unknown: None }
    }

    pub(crate) fn unknown(error: &anyhow::Error) -> Self {
        Self { unknown: Some(format!("{error:#}")), ..Self::default() }
    }
}

/// The newest ones, and the number of all.
fn newest<T>(all: impl Iterator<Item = T>, at_ms: impl Fn(&T) -> i64) -> (Vec<T>, usize) {
    let mut all: Vec<T> = all.collect();
    let count = all.len();
    // Those of one time stay in the order of their keys.
    all.sort_by_key(|one| Reverse(at_ms(one)));
    all.truncate(LISTED);
    (all, count)
}

#[cfg(test)]
mod tests {
    use cart::{Control, ControlRecord, LogEpoch, ParkingState, Position};
    use chrono::DateTime;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_page_gets_who_did_what_and_the_oldest_parked_carts() {
        let mut controls = Controls::default();
        let records = [
            ("pause/popular-items-g2/3", Control::Pause { before_offset: Some(7) }),
            ("skip/vendor-billing/item-purchased/1/9", Control::Skip { sha256: String::from("00") }),
        ];
        for (offset, (key, control)) in (0..).zip(records) {
            let (by, reason) = (String::from("ops"), String::from("a test"));
            let record = ControlRecord { by, at: DateTime::UNIX_EPOCH, reason, control };
            controls.apply(offset, key.parse().expect("a key"), Some(record));
        }
        let parked = |number: u128| {
            let position = Position::new(LogEpoch::FIRST, 4);
            let since = DateTime::from_timestamp_millis(i64::try_from(100 - number).expect("small")).expect("a time");
            let reason = String::from("rule-panicked");
            let (first_position, next_position, state) = (position, position, ParkingState::Parked);
            (CartId::from(Uuid::from_u128(number)), ParkedCart { first_position, next_position, state, reason, since })
        };
        let operations = Operations::new(&controls, (1..=12).map(parked).collect());
        let shown = serde_json::to_value(&operations).expect("JSON");
        let act = |mut of: serde_json::Value| {
            let fields = of.as_object_mut().expect("an object");
            fields.extend([("by".into(), "ops".into()), ("atMs".into(), 0.into()), ("reason".into(), "a test".into())]);
            of
        };
        assert_eq!(
            shown["pauses"],
            json!([act(json!({"group": "popular-items-g2", "partition": 3, "beforeOffset": 7}))])
        );
        assert_eq!(shown["skips"], json!([act(json!({"group": "vendor-billing", "record": "item-purchased/1/9"}))]));
        assert_eq!((&shown["parkedCount"], shown["parked"].as_array().map(Vec::len)), (&json!(12), Some(LISTED)));
        let oldest =
            json!({"cartId": Uuid::from_u128(12), "state": "parked", "sinceMs": 88, "reason": "rule-panicked"});
        assert_eq!(shown["parked"][0], oldest);
    }

    #[test]
    fn the_newest_pauses_and_skips_are_listed_and_the_others_counted() {
        let mut controls = Controls::default();
        for number in 1..=12 {
            let records = [
                (format!("pause/a/{number}"), Control::Pause { before_offset: None }),
                (format!("skip/a/item-purchased/0/{number}"), Control::Skip { sha256: String::from("00") }),
            ];
            for (key, control) in records {
                let at = DateTime::from_timestamp_millis(number).expect("a time");
                let record = ControlRecord { by: String::new(), at, reason: String::new(), control };
                controls.apply(number, key.parse().expect("a key"), Some(record));
            }
        }
        let shown = serde_json::to_value(Operations::new(&controls, Vec::new())).expect("JSON");
        for (kind, count) in [("pauses", "pausesCount"), ("skips", "skipsCount")] {
            let listed = shown[kind].as_array().expect("a list");
            assert_eq!((&shown[count], listed.len()), (&json!(12), LISTED), "{kind}");
            assert_eq!((&listed[0]["atMs"], &listed[LISTED - 1]["atMs"]), (&json!(12), &json!(3)), "{kind}");
        }
    }
}
