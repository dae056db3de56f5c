//! `cartctl skipped` and `cartctl log`.

use std::io::Write;

use cart::contract::{Contract as _, group};
use cart::{CartCommand, Control, ControlRecord};
use control::{Discard, LogEntry};
use serde_json::json;
use tokio::task::block_in_place;

use super::args::ListArgs;
use super::{Kafka, time};

/// Writes the records that groups skip, and the commands that are discarded.
///
/// # Errors
/// Kafka or the registry does not respond, or writing fails.
pub async fn skipped(args: &ListArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let kafka = Kafka::connect(&args.kafka).await?;
    let controls = block_in_place(|| kafka.control.controls())?;
    for skip in controls.skips() {
        let ControlRecord { by, at, reason, .. } = &skip.entry.record;
        let record = format!("{}/{}/{}", skip.topic, skip.partition, skip.offset);
        if args.json {
            let (group, sha256) = (skip.group, skip.sha256);
            let line =
                json!({"group": group, "record": record, "sha256": sha256, "by": by, "at": at, "reason": reason});
            writeln!(out, "{line}")?;
        } else {
            let (by, at) = (one_line(by), time(*at));
            writeln!(out, "{} skips {record} (sha256:{}): {by}, {at}, {reason:?}", skip.group, skip.sha256)?;
        }
    }
    for Discard { partition, position, cart_id, command_id, sha256, entry } in controls.discards() {
        let ControlRecord { by, at, reason, .. } = &entry.record;
        let (group, record) =
            (group::CART_PROCESSOR, format!("{}/{partition}/{}", CartCommand::TOPIC, position.offset()));
        if args.json {
            let line = json!({
                "group": group, "record": record, "sha256": sha256, "cartId": cart_id, "commandId": command_id, "by": by, "at": at,
                "reason": reason
            });
            writeln!(out, "{line}")?;
        } else {
            let (by, at) = (one_line(by), time(*at));
            writeln!(
                out,
                "{group} discards {record} (command {command_id} of cart {cart_id}): {by}, {at}, {reason:?}"
            )?;
        }
    }
    Ok(())
}

/// Writes all control records in their order.
///
/// # Errors
/// As [`skipped`].
pub async fn log(args: &ListArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let kafka = Kafka::connect(&args.kafka).await?;
    for entry in block_in_place(|| kafka.control.read_all())? {
        if args.json {
            writeln!(out, "{}", object(&entry))?;
        } else {
            writeln!(out, "{}", line(&entry))?;
        }
    }
    Ok(())
}

fn object(LogEntry { offset, key, record }: &LogEntry) -> serde_json::Value {
    match record {
        None => json!({"offset": offset, "key": key, "record": null}),
        Some(Ok(record)) => json!({"offset": offset, "key": key, "record": record}),
        Some(Err(error)) => json!({"offset": offset, "key": key, "error": error}),
    }
}

fn line(LogEntry { offset, key, record }: &LogEntry) -> String {
    let text = match record {
        None => format!("{offset} {key}: ended"),
        Some(Err(error)) => format!("{offset} {key}: cannot be read: {error}"),
        Some(Ok(ControlRecord { by, at, reason, control })) => {
            let what = match control {
                Control::Pause { before_offset: None } => String::from("pause"),
                Control::Pause { before_offset: Some(before) } => format!("pause before {before}"),
                Control::Resume {} => String::from("resume"),
                Control::Skip { sha256 } => format!("skip sha256:{sha256}"),
                Control::Paused { next_offset, .. } => format!("paused, next offset {next_offset}"),
                Control::Stopped { offset, sha256 } if sha256.is_empty() => format!("stopped at {offset}"),
                Control::Stopped { offset, sha256 } => format!("stopped at {offset} sha256:{sha256}"),
                Control::Withdraw {} => String::from("withdrawn"),
                Control::Discard { cart_id, command_id, .. } => {
                    format!("discard command {command_id} of cart {cart_id}")
                }
            };
            format!("{offset} {} {key}: {what}, by {by}: {reason}", time(*at))
        }
    };
    one_line(&text)
}

/// Names and reasons may contain control characters.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line() {
        let entry = |record| LogEntry { offset: 7, key: String::from("pause/popular-items"), record };
        let said = |control| {
            let (by, reason) = (String::from("ops"), String::from("index\nbuild"));
            Some(Ok(ControlRecord { by, at: "2026-11-29T12:04:00Z".parse().expect("a time"), reason, control }))
        };
        assert_eq!(
            line(&entry(said(Control::Pause { before_offset: Some(9) }))),
            "7 2026-11-29T12:04:00Z pause/popular-items: pause before 9, by ops: index build"
        );
        assert_eq!(one_line("o\u{1b}[2J\nps"), "o [2J ps");
        let cart_id = "7b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff".parse().expect("an id");
        let command_id = "01a226a2-f5d5-742d-b035-6e8d73f3d93c".parse().expect("an id");
        let discard = Control::Discard { cart_id, command_id, position: 7.into(), sha256: String::new() };
        let discarded = line(&entry(said(discard)));
        let what =
            "discard command 01a226a2-f5d5-742d-b035-6e8d73f3d93c of cart 7b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff, by ops";
        assert!(discarded.contains(what), "{discarded}");
        assert_eq!(line(&entry(None)), "7 pause/popular-items: ended");
        assert_eq!(object(&entry(said(Control::Resume {})))["record"]["control"], json!({"Resume": {}}));
    }
}
