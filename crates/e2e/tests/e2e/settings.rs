//! `.env.sample` names every option of every service, with its default; what differs on topics that are there is told;
//! topics with many partitions can be made.

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
const COMMANDS: [&[&str]; 8] = [
    &["cartctl", "audit"],
    &["ingest"],
    &["ingest", "setup"],
    &["cart-processor"],
    &["cart-processor", "setup"],
    &["projectors", "setup"],
    &["projectors", "popular-items"],
    &["projectors", "vendor-billing-jdbc"],
];

/// One name with two defaults: the sample gives the first service's and says the other's.
const TWO_DEFAULTS: &str = "BATCH_LEN_MAX";

/// Name and default of each setting, from the help text.
fn settings(command: &[&str]) -> anyhow::Result<BTreeMap<String, String>> {
    let help = Command::new(binary(command[0])?).args(&command[1..]).arg("-h").env_clear().output()?;
    ensure!(help.status.success(), "{command:?} -h: {}", help.status);
    let mut settings = BTreeMap::new();
    for line in String::from_utf8(help.stdout)?.lines() {
        let Some((_, after)) = line.split_once("[env: ") else { continue };
        let (name, rest) = after.split_once(']').context("[env: has no end")?;
        let default = rest.split_once("[default: ").and_then(|(_, default)| default.split_once(']'));
        let default = default.map_or("", |(default, _)| default);
        settings.insert(name.trim_end_matches('=').to_owned(), default.trim_matches('"').to_owned());
    }
    Ok(settings)
}

pub(crate) async fn the_sample_names_every_option_with_its_default() -> anyhow::Result<()> {
    let sample = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.env.sample"))?;
    let sampled: BTreeMap<_, _> = sample
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once('='))
        .filter(|(n, _)| !n.contains(' '))
        .collect();
    for command in COMMANDS {
        let settings = settings(command)?;
        ensure!(settings.len() > 5, "the help of {command:?} was not understood");
        for (name, default) in settings {
            let given =
                sampled.get(name.as_str()).with_context(|| format!(".env.sample lacks {name} of {command:?}"))?;
            let is_switch = default.is_empty() && *given == "false";
            ensure!(
                *given == default || is_switch || name == TWO_DEFAULTS,
                ".env.sample says {name}={given}, {command:?} says {default}"
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
