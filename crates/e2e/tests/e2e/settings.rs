//! `.env.sample` has every option of every service, with its default, group and description from `-h`; `setup` reports
//! different settings of existing topics; topics with many partitions can be created.

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

/// Each command of each service. The projectors that are left out have the options of one of these.
const COMMANDS: [&[&str]; 11] = [
    &["cartctl", "audit"],
    &["cartctl", "status"],
    &["ingest"],
    &["ingest", "setup"],
    &["cart-processor"],
    &["cart-processor", "setup"],
    &["cartctl", "restore-journal"],
    &["projectors", "setup"],
    &["projectors", "popular-items"],
    &["projectors", "vendor-billing-jdbc"],
    &["cart-console"],
];

/// The groups of the help texts, in order. An option without a heading is in the first one.
const GROUPS: [&str; 10] = [
    "Options",
    "Common",
    "Servers",
    "Secured servers",
    "Setup",
    "Authentication and access",
    "TLS",
    "Limits",
    "Times",
    "Logs",
];

/// Names with several defaults: the sample has the first service's, and mentions the others'.
const SEVERAL_DEFAULTS: [&str; 1] = ["ADMIN_LISTEN"];

/// A setting in a help text or in the sample.
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
        // Short options have their text beside them, not below.
        let sentence = sentence.trim().rsplit("  ").next().unwrap_or_default().to_owned();
        let (name, rest) = after.split_once(']').context("[env: has no end")?;
        let default = rest.split_once("[default: ").and_then(|(_, default)| default.split_once(']'));
        let default = default.map_or("", |(default, _)| default).trim_matches('"').to_owned();
        let group = groups.last().cloned().unwrap_or_default();
        settings.insert(name.trim_end_matches('=').to_owned(), Setting { group, sentence, default });
    }
    Ok((settings, groups))
}

/// The names of a command's options that can be set in the environment.
pub(crate) fn option_names(command: &[&str]) -> anyhow::Result<Vec<String>> {
    Ok(settings(command)?.0.into_keys().collect())
}

/// The default of a command's option.
pub(crate) fn option_default(command: &[&str], name: &str) -> anyhow::Result<String> {
    let (settings, _) = settings(command)?;
    let setting = settings.get(name).with_context(|| format!("{command:?} has no option {name}"))?;
    Ok(setting.default.clone())
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
            if SEVERAL_DEFAULTS.contains(&name.as_str()) {
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

/// A setting that the client overrides must be rejected, since it would have no effect.
pub(crate) async fn a_kafka_setting_that_guarantees_depend_on_is_rejected_at_the_start() -> anyhow::Result<()> {
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

pub(crate) async fn an_existing_topic_keeps_its_settings_and_setup_reports_differences() -> anyhow::Result<()> {
    let installation = Installation::new("settings")?;
    let kafka = installation.kafka();
    let (commands, events) = (kafka.prefixed(CartCommand::TOPIC), kafka.prefixed(CartEvent::TOPIC));
    let config = &[("retention.ms", "86400000")];
    let older = TopicSpec { name: commands.clone(), partitions: 2, replication: 1, config };
    Admin::new(kafka)?.ensure_topics(&[older]).await?;
    for run in ["setup", "setup-again"] {
        let output = installation.run(run, "cart-processor", ["setup"], DEADLINE).await?;
        for setting in ["retention.ms=-1", "message.timestamp.after.max.ms=9223372036854775807"] {
            let command = format!("kafka-configs.sh --alter --topic {commands} --add-config {setting}");
            ensure!(output.contains(&command), "{run} does not print '{command}': {output}");
        }
        ensure!(
            output.contains(r#"setting="retention.ms" found="86400000""#),
            "{run} does not print the current setting: {output}"
        );
        for same in [String::from("retention.bytes="), format!("--topic {events} ")] {
            ensure!(!output.contains(&same), "{run} prints an equal setting ('{same}'): {output}");
        }
    }
    installation.remove().await
}

/// Brokers need some time until each knows a new topic and its leaders, especially while they create hundreds of partitions.
/// `setup` has failed with 'it does not exist' and 'not leader'.
pub(crate) async fn a_topic_is_usable_once_setup_has_made_it() -> anyhow::Result<()> {
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
    // Only the topics were created.
    Ok(std::fs::remove_dir_all(installation.folder())?)
}
