//! `.env.sample` names every option of every service, with its default, group and sentence, as `-h` has them; `setup` reports
//! what differs on topics that exist; topics with many partitions can be made.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::Contract as _;
use cart::{CartCommand, CartEvent};
use e2e::harness::{Installation, binary};
use kafka::{Admin, TopicSpec};

const DEADLINE: Duration = Duration::from_secs(180);

/// Each command of each service; the projectors that are not here share their options with one that is.
const COMMANDS: [&[&str]; 9] = [
    &["cartctl", "audit"],
    &["ingest"],
    &["ingest", "setup"],
    &["cart-processor"],
    &["cart-processor", "setup"],
    &["cartctl", "restore-journal"],
    &["projectors", "setup"],
    &["projectors", "popular-items"],
    &["projectors", "vendor-billing-jdbc"],
];

/// The groups of the help texts, in their order everywhere. Without a heading of its own an option is in the first.
const GROUPS: [&str; 9] =
    ["Options", "Common", "Servers", "Setup", "Authentication and access", "TLS", "Limits", "Times", "Logs"];

/// One name with two defaults: the sample gives the first service's and says the other's.
const TWO_DEFAULTS: &str = "BATCH_LEN_MAX";

/// What a help text or the sample says of a setting.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    group: String,
    sentence: String,
    default: String,
}

/// Each setting by its name, and the groups in their order, from the help text.
fn settings(command: &[&str]) -> anyhow::Result<(BTreeMap<String, Setting>, Vec<String>)> {
    let help = Command::new(binary(command[0])?).args(&command[1..]).arg("-h").env_clear().output()?;
    ensure!(help.status.success(), "{command:?} -h: {}", help.status);
    let (mut settings, mut groups) = (BTreeMap::new(), Vec::new());
    for line in String::from_utf8(help.stdout)?.lines() {
        let heading = line.strip_suffix(':').filter(|_| !line.starts_with(' '));
        if let Some(group) = heading.filter(|text| *text != "Commands" && !text.starts_with("Example")) {
            groups.push(group.to_owned());
        }
        let Some((sentence, after)) = line.split_once(" [env: ") else { continue };
        // Short options have theirs beside them, not below.
        let sentence = sentence.trim().rsplit("  ").next().unwrap_or_default().to_owned();
        let (name, rest) = after.split_once(']').context("[env: has no end")?;
        let default = rest.split_once("[default: ").and_then(|(_, default)| default.split_once(']'));
        let default = default.map_or("", |(default, _)| default).trim_matches('"').to_owned();
        let group = groups.last().cloned().unwrap_or_default();
        settings.insert(name.trim_end_matches('=').to_owned(), Setting { group, sentence, default });
    }
    Ok((settings, groups))
}

/// The settings of `.env.sample`: `# --- services: group ---`, then `# sentence` and `#NAME=default` of each.
fn sampled() -> anyhow::Result<BTreeMap<String, Setting>> {
    let sample = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.env.sample"))?;
    let (mut settings, mut group, mut sentence) = (BTreeMap::new(), String::new(), Vec::new());
    for line in sample.lines() {
        if let Some(heading) = line.strip_prefix("# --- ") {
            heading.trim_end_matches(['-', ' ']).rsplit(": ").next().unwrap_or_default().clone_into(&mut group);
        } else if let Some(words) = line.strip_prefix("# ") {
            sentence.push(words);
        } else if let Some((name, default)) = line.strip_prefix('#').and_then(|line| line.split_once('=')) {
            let (group, sentence, default) = (group.clone(), sentence.join(" "), default.to_owned());
            let former = settings.insert(name.to_owned(), Setting { group, sentence, default });
            ensure!(former.is_none(), ".env.sample names {name} twice");
        }
        if !line.starts_with("# ") {
            sentence.clear();
        }
    }
    Ok(settings)
}

pub(crate) async fn the_sample_names_every_option_with_its_default() -> anyhow::Result<()> {
    let sampled = sampled()?;
    for command in COMMANDS {
        let (settings, groups) = settings(command)?;
        ensure!(settings.len() > 5, "the help of {command:?} was not understood");
        let mut order = GROUPS.iter();
        for group in groups {
            ensure!(order.any(|known| **known == group), "{command:?} has the group {group} out of order");
        }
        for (name, option) in settings {
            let sample = sampled.get(&name).with_context(|| format!(".env.sample lacks {name} of {command:?}"))?;
            let is_switch = option.default.is_empty() && sample.default == "false";
            if name == TWO_DEFAULTS {
                ensure!(
                    sample.sentence.starts_with(&option.sentence) && sample.group == option.group,
                    ".env.sample says {sample:?} of {name}, {command:?} {option:?}"
                );
                continue;
            }
            ensure!(
                sample.default == option.default || is_switch,
                ".env.sample says {name}={}, {command:?} says {}",
                sample.default,
                option.default
            );
            ensure!(
                (&sample.group, &sample.sentence) == (&option.group, &option.sentence),
                ".env.sample says {sample:?} of {name}, {command:?} {option:?}"
            );
        }
    }
    Ok(())
}

/// One that a client sets itself had no effect, and its user did not learn that.
pub(crate) async fn a_kafka_setting_that_guarantees_depend_on_is_refused_at_the_start() -> anyhow::Result<()> {
    for command in COMMANDS {
        for setting in ["group.id=own", "enable.auto.commit=true", "request.required.acks=1"] {
            let properties = format!("fetch.min.bytes=2,{setting}");
            let mut process = Command::new(binary(command[0])?);
            let output = process.args(&command[1..]).env_clear().env("KAFKA_PROPERTIES", properties).output()?;
            let text = String::from_utf8_lossy(&output.stderr);
            let is_right = output.status.code() == Some(2) && text.contains(setting) && text.contains("cannot be set");
            ensure!(
                is_right && !text.contains("fetch.min.bytes"),
                "{command:?} with {setting}: {}: {text}",
                output.status
            );
        }
    }
    Ok(())
}

pub(crate) async fn a_topic_that_is_there_keeps_its_settings_and_setup_tells_what_differs() -> anyhow::Result<()> {
    let installation = Installation::new("settings")?;
    let kafka = installation.kafka();
    let (commands, events) = (kafka.prefixed(CartCommand::TOPIC), kafka.prefixed(CartEvent::TOPIC));
    let config = &[("retention.ms", "86400000")];
    let older = TopicSpec { name: commands.clone(), partitions: 2, replication: 1, config };
    Admin::new(kafka)?.ensure_topics(&[older]).await?;
    for run in ["setup", "setup-again"] {
        let told = installation.run(run, "cart-processor", ["setup"], DEADLINE).await?;
        for setting in ["retention.ms=-1", "message.timestamp.after.max.ms=9223372036854775807"] {
            let command = format!("kafka-configs.sh --alter --topic {commands} --add-config {setting}");
            ensure!(told.contains(&command), "{run} does not say '{command}': {told}");
        }
        ensure!(told.contains("has retention.ms=86400000"), "{run} does not say what is there: {told}");
        for same in [String::from("retention.bytes="), format!("--topic {events} ")] {
            ensure!(!told.contains(&same), "{run} tells what does not differ ('{same}'): {told}");
        }
    }
    installation.remove().await
}

/// Brokers take their time until each knows of a new topic and of what it leads, the more so while they make hundreds of
/// partitions. `setup` was told 'it does not exist' and 'not leader'.
pub(crate) async fn a_topic_can_be_used_once_it_is_made() -> anyhow::Result<()> {
    let installation = Installation::new("new_topics")?;
    let kafka = installation.kafka();
    let spec =
        |name: &str, partitions| TopicSpec { name: kafka.prefixed(name), partitions, replication: 1, config: &[] };
    let large = ["large-1", "large-2", "large-3", "large-4"].map(|name| spec(name, 96));
    let small = ["small-1", "small-2", "small-3", "small-4", "small-5", "small-6"].map(|name| spec(name, 3));
    let admin = Admin::new(kafka)?;
    let use_topics = async |topics: &[TopicSpec]| {
        admin.ensure_topics(topics).await?;
        for topic in topics {
            let watermarks = tokio::task::block_in_place(|| admin.watermarks(&topic.name))?;
            ensure!(watermarks.len() == usize::try_from(topic.partitions)?, "{}: {watermarks:?}", topic.name);
        }
        anyhow::Ok(())
    };
    let small_ones = async {
        for topic in small.chunks(1) {
            use_topics(topic).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(use_topics(&large), small_ones)?;
    admin.remove_topics(&large.iter().chain(&small).map(|topic| topic.name.as_str()).collect::<Vec<_>>()).await?;
    // It has nothing but topics.
    Ok(std::fs::remove_dir_all(installation.folder())?)
}
