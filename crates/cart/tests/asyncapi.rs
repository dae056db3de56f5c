//! `schemas/asyncapi.json` describes the topics to programs, as AsyncAPI 3.0: made from the schemas and the contract, and
//! kept equal to them by this test. `ASYNCAPI_WRITE=1` writes it anew; look at what it wrote, and commit it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use cart::contract::{Contract, DEAD_LETTER_SETTINGS, DEAD_LETTER_TOPIC, header};
use cart::{CartCommand, CartEvent, CartParked, CartReply, ControlRecord, PurchasedItem};
use serde_json::{Map, Value, json};

struct Topic {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    description: &'static str,
    /// What the key is, if there is one.
    key: Option<&'static str>,
    payload: Value,
    headers: Value,
    /// `send`: this project writes it. `receive`: this project reads it.
    operations: &'static [&'static str],
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn avro<T: Contract>() -> Value {
    let schema: Value = serde_json::from_str(T::SCHEMA).unwrap();
    json!({"schemaFormat": "application/vnd.apache.avro+json;version=1.12.0", "schema": schema})
}

fn headers(of: &[(&str, &str)]) -> Value {
    let properties: Map<_, _> = of.iter().map(|(name, what)| ((*name).to_owned(), text(what))).collect();
    json!({"type": "object", "properties": properties})
}

const CONTENT_TYPE: (&str, &str) = ("content-type", "avro/binary");
const TRACE: (&str, &str) =
    (header::TRACE_PARENT, "W3C Trace Context of what the record follows from, if it belongs to a trace");
const TRACE_STATE: (&str, &str) = (header::TRACE_STATE, "What tracing systems add to traceparent");

fn topics() -> [Topic; 7] {
    [
        Topic {
            name: CartCommand::TOPIC,
            settings: CartCommand::SETTINGS,
            description: "What is wanted of carts. A command's outcome is settled by its place here. Producers partition the \
                 key as Java's clients do (murmur2); a record elsewhere, or that is no command, goes to the dead letters.",
            key: Some("cartId"),
            payload: avro::<CartCommand>(),
            headers: headers(&[
                CONTENT_TYPE,
                TRACE,
                TRACE_STATE,
                ("reply-partition", "The partition of cart-replies that is read for the answer"),
            ]),
            operations: &["send", "receive"],
        },
        Topic {
            name: CartEvent::TOPIC,
            settings: CartEvent::SETTINGS,
            description: "What has happened to carts, in the order of each cart, without gaps in sequenceNumber. Written in \
                 transactions: read it with isolation.level=read_committed, and each event is there once.",
            key: Some("cartId"),
            payload: avro::<CartEvent>(),
            headers: headers(&[CONTENT_TYPE, TRACE, TRACE_STATE]),
            operations: &["send"],
        },
        Topic {
            name: PurchasedItem::TOPIC,
            settings: PurchasedItem::SETTINGS,
            description: "Every line of every checkout, by vendor. Written in transactions: read it with \
                 isolation.level=read_committed, and each purchase is there once.",
            key: Some("vendorId"),
            payload: avro::<PurchasedItem>(),
            headers: headers(&[CONTENT_TYPE, TRACE, TRACE_STATE]),
            operations: &["send"],
        },
        Topic {
            name: CartReply::TOPIC,
            settings: CartReply::SETTINGS,
            description: "The outcomes of commands, for the ingest that waits for them: for minutes, perhaps twice, perhaps \
                 never. Not for others: what has happened is on cart-events.",
            key: None,
            payload: avro::<CartReply>(),
            headers: headers(&[TRACE, TRACE_STATE]),
            operations: &["send"],
        },
        Topic {
            name: ControlRecord::TOPIC,
            settings: ControlRecord::SETTINGS,
            description: "What operators want of consumer groups (pause, resume, skip, discard), and what members answer. \
                 One partition; the last record of a key holds, and one without a value ends what the key stood for.",
            key: None,
            payload: avro::<ControlRecord>(),
            headers: headers(&[CONTENT_TYPE]),
            operations: &["send", "receive"],
        },
        Topic {
            name: CartParked::TOPIC,
            settings: CartParked::SETTINGS,
            description: "Carts whose commands wait, because the cart cannot be read or decided: compacted, the newest record of \
                 a key holds. Markers are written in transactions, with the offsets behind the commands. Partitions as \
                 cart-commands.",
            key: Some("cartId, for a request retry/ and cartId,"),
            payload: avro::<CartParked>(),
            headers: headers(&[]),
            operations: &["send", "receive"],
        },
        Topic {
            name: DEAD_LETTER_TOPIC,
            settings: DEAD_LETTER_SETTINGS,
            description: "Records of cart-commands that cannot be decided, or that an operator has discarded: key, value and \
                 headers as they were, and why.",
            key: None,
            payload: json!({"type": "string", "format": "binary", "description": "The original value, whatever it was"}),
            headers: headers(&[
                ("dead-letter-reason", "Why it is no command"),
                ("dead-letter-topic", "Where it was: the topic"),
                ("dead-letter-partition", "Where it was: the partition"),
                ("dead-letter-offset", "Where it was: the offset"),
                ("dead-letter-timestamp", "The original's timestamp, in milliseconds since 1970"),
            ]),
            operations: &["send"],
        },
    ]
}

fn document() -> Value {
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for topic in topics() {
        let configuration: Map<_, _> =
            topic.settings.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let mut message = json!({
            "name": topic.name,
            "contentType": "avro/binary",
            "headers": topic.headers,
            "payload": topic.payload,
            "bindings": {"kafka": {"schemaIdLocation": "payload", "schemaIdPayloadEncoding": "confluent", "bindingVersion": "0.5.0"}},
        });
        if let Some(key) = topic.key {
            let description = format!("{key} as lower-case hyphenated text");
            message["bindings"]["kafka"]["key"] =
                json!({"type": "string", "format": "uuid", "description": description});
        }
        messages.insert(topic.name.to_owned(), message);
        channels.insert(
            topic.name.to_owned(),
            json!({
                "address": format!("{{prefix}}{}", topic.name),
                "description": topic.description,
                "parameters": {"prefix": {"description": "The installation's TOPIC_PREFIX, empty by default", "default": ""}},
                "messages": {"record": {"$ref": format!("#/components/messages/{}", topic.name)}},
                // Settings that differ from the broker's.
                "x-topic-configuration": configuration,
            }),
        );
        for action in topic.operations {
            let channel = json!({"$ref": format!("#/channels/{}", topic.name)});
            operations.insert(format!("{action}-{}", topic.name), json!({"action": action, "channel": channel}));
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Shopping cart topics",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Registry-framed Avro: a zero byte, the schema's id in four bytes (big-endian), the datum. Subjects \
                 are the topics' names with -value behind them; they change BACKWARD_TRANSITIVE: branches of unions are only \
                 ever appended, so a reader that meets one that it does not know stops until it is upgraded.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "avro/binary",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    })
}

#[test]
fn the_topics_are_described_as_they_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/asyncapi.json");
    let made = format!("{:#}\n", document());
    if std::env::var_os("ASYNCAPI_WRITE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "schemas/asyncapi.json is not what the contract says: write it anew with ASYNCAPI_WRITE=1");
}
