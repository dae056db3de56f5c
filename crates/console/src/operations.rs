//! What keeps groups and carts, for the page: pauses, stops, skips and discards from `cart-control`, parked carts from
//! `cart-parked`.

use std::cmp::Reverse;

use cart::contract::{Contract as _, group};
use cart::{CartCommand, CartId, ParkedCart};
use control::{Controls, Entry, Group, SkipRequest, Stop};
use serde::Serialize;

/// How many pauses, stops, skips, parked carts and parked rows are listed, of each kind. More are counted.
pub(crate) const LISTED: usize = 10;

/// Who has wanted something, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Act {
    pub(crate) by: String,
    pub(crate) at_ms: i64,
    pub(crate) reason: String,
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

/// A partition that is stopped at a record which cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stopped {
    pub(crate) group: String,
    /// The topic that the group reads.
    #[serde(skip)]
    pub(crate) topic: &'static str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// As `topic/partition/offset`.
    record: String,
    /// `None`: the record cannot be skipped.
    sha256: Option<String>,
    /// What the partition's member says.
    #[serde(flatten)]
    act: Act,
}

impl Stopped {
    /// `None` where the record is skipped: the member goes on in a moment.
    fn of(controls: &Controls, group: &str, partition: i32, stop: Stop<'_>) -> Option<Self> {
        let group: Group = group.parse().ok()?;
        let Stop { offset, sha256, entry } = stop;
        let request = SkipRequest { group: &group, partition, offset };
        if request.recorded(controls) == Some(sha256) {
            return None;
        }
        let (record, sha256) = (request.place(), Some(sha256.to_owned()).filter(|sha256| !sha256.is_empty()));
        let topic = group.stage.topic;
        Some(Self { group: group.name, topic, partition, offset, record, sha256, act: Act::of(entry) })
    }
}

/// Where members have said that partitions are stopped, without what is skipped.
pub(crate) fn stops(controls: &Controls) -> Vec<Stopped> {
    let stops = controls.stops();
    stops.filter_map(|(group, partition, stop)| Stopped::of(controls, group, partition, stop)).collect()
}

/// A record that a group goes past, or a command that is given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Skip {
    group: String,
    /// As `topic/partition/offset`.
    record: String,
    is_discard: bool,
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
    stops: Vec<Stopped>,
    stops_count: usize,
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
    pub(crate) fn new(controls: &Controls, stops: Vec<Stopped>, mut parked: Vec<(CartId, ParkedCart)>) -> Self {
        let pauses = controls.pauses().map(|(group, partition, pause)| Pause {
            group: group.to_owned(),
            partition,
            before_offset: pause.before,
            act: Act::of(pause.entry),
        });
        let skips = controls.skips().map(|skip| Skip {
            group: skip.group.to_owned(),
            record: format!("{}/{}/{}", skip.topic, skip.partition, skip.offset),
            is_discard: false,
            act: Act::of(skip.entry),
        });
        let skips = skips.chain(controls.discards().map(|discard| Skip {
            group: group::CART_PROCESSOR.to_owned(),
            record: format!("{}/{}/{}", CartCommand::TOPIC, discard.partition, discard.position.offset()),
            is_discard: true,
            act: Act::of(discard.entry),
        }));
        let (pauses, pauses_count) = newest(pauses, |pause| pause.act.at_ms);
        let (stops, stops_count) = newest(stops.into_iter(), |stop| stop.act.at_ms);
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
        let unknown = None;
        Self { pauses, pauses_count, stops, stops_count, skips, skips_count, parked, parked_count, unknown }
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
            ("discard/2/4", {
                let (cart_id, command_id) = (Uuid::nil().into(), Uuid::nil().into());
                let position = Position::new(LogEpoch::FIRST, 4);
                Control::Discard { cart_id, command_id, position, sha256: String::from("00") }
            }),
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
        let operations = Operations::new(&controls, stops(&controls), (1..=12).map(parked).collect());
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
        let skipped = json!({"group": "vendor-billing", "record": "item-purchased/1/9", "isDiscard": false});
        let discarded = json!({"group": "cart-processor", "record": "cart-commands/2/4", "isDiscard": true});
        assert_eq!(shown["skips"], json!([act(skipped), act(discarded)]));
        assert_eq!((&shown["parkedCount"], shown["parked"].as_array().map(Vec::len)), (&json!(12), Some(LISTED)));
        let oldest =
            json!({"cartId": Uuid::from_u128(12), "state": "parked", "sinceMs": 88, "reason": "rule-panicked"});
        assert_eq!(shown["parked"][0], oldest);
    }

    #[test]
    fn a_stop_is_shown_until_its_record_is_skipped() {
        let mut controls = Controls::default();
        let mut apply = |offset, key: &str, control| {
            let (by, reason) = (String::from("popular-items-0"), String::from("not Avro"));
            let record = ControlRecord { by, at: DateTime::UNIX_EPOCH, reason, control };
            controls.apply(offset, key.parse().expect("a key"), Some(record));
            serde_json::to_value(Operations::new(&controls, stops(&controls), Vec::new())).expect("JSON")["stops"]
                .clone()
        };
        let stopped = |offset, sha256: &str| Control::Stopped { offset, sha256: sha256.to_owned() };
        apply(0, "stopped/popular-items-g2/3", stopped(77, "9f"));
        let shown = apply(1, "stopped/cart-processor/0", stopped(5, ""));
        let stop = |group: &str, record: &str, sha256: Option<&str>| {
            let place: Vec<&str> = record.split('/').collect();
            let number = |text: &str| text.parse::<i64>().expect("a number");
            json!({
                "group": group, "partition": number(place[1]), "offset": number(place[2]), "record": record, "sha256": sha256,
                "by": "popular-items-0", "atMs": 0, "reason": "not Avro",
            })
        };
        let of_commands = stop("cart-processor", "cart-commands/0/5", None);
        assert_eq!(shown, json!([of_commands, stop("popular-items-g2", "item-purchased/3/77", Some("9f"))]));
        let skip = Control::Skip { sha256: String::from("9f") };
        assert_eq!(apply(2, "skip/popular-items/item-purchased/3/77", skip), json!([of_commands]));
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
        let shown = serde_json::to_value(Operations::new(&controls, stops(&controls), Vec::new())).expect("JSON");
        for (kind, count) in [("pauses", "pausesCount"), ("skips", "skipsCount")] {
            let listed = shown[kind].as_array().expect("a list");
            assert_eq!((&shown[count], listed.len()), (&json!(12), LISTED), "{kind}");
            assert_eq!((&listed[0]["atMs"], &listed[LISTED - 1]["atMs"]), (&json!(12), &json!(3)), "{kind}");
        }
    }
}
