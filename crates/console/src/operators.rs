//! The thread that follows what operators want: it looks every few seconds while somebody looks at the page, and reads from a topic what is
//! new there.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cart::contract::{Contract as _, READ_MODELS};
use cart::{CartCommand, Generation};
use control::{ControlTopic, Follower};
use kafka::{Admin, GroupProgress, KafkaArgs, Registry};
use parking::ParkedCarts;
use service::LogLimit;

use crate::follow::Context;
use crate::operations::{Operations, Stopped, stops};

const INTERVAL: Duration = Duration::from_secs(3);

/// After this many failed looks in a row, a minute, the next one uses new clients. Until then they connect again by themselves.
const CLIENT_FAILURES_MAX: u32 = 20;

/// Starts the thread.
pub(crate) fn start(mut context: Context) -> io::Result<()> {
    let run = move || {
        let (mut clients, mut failures) = (Clients::default(), 0_u32);
        while context.wait() {
            let started_at = Instant::now();
            let operations = match clients.look(&context) {
                Ok(operations) => {
                    failures = 0;
                    operations
                }
                Err(error) => {
                    static LIMIT: LogLimit = LogLimit::new();
                    if let Some(left_out) = LIMIT.admit() {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            left_out,
                            "pauses, stops, skips and parked carts are not known"
                        );
                    }
                    failures += 1;
                    if failures.is_multiple_of(CLIENT_FAILURES_MAX) {
                        clients = Clients::default();
                    }
                    Operations::unknown(&error)
                }
            };
            *context.board.operations() = Some(operations);
            std::thread::sleep(INTERVAL.saturating_sub(started_at.elapsed()));
        }
    };
    std::thread::Builder::new().name("operations".to_owned()).spawn(run)?;
    Ok(())
}

/// Each is made by the first look that needs it.
#[derive(Default)]
struct Clients {
    servers: Option<(Registry, Arc<Admin>)>,
    control: Option<Follower>,
    /// Of each group of which a partition has been stopped.
    groups: BTreeMap<String, GroupProgress>,
    /// With the number of partitions.
    parked: Option<(ParkedCarts, i32)>,
}

impl Clients {
    fn look(&mut self, context: &Context) -> anyhow::Result<Operations> {
        let (kafka, runtime) = (&context.kafka, &context.runtime);
        let (registry, admin) =
            &*get_or_make(&mut self.servers, || Ok((Registry::new(kafka)?, Arc::new(Admin::new(kafka)?))))?;
        let control = get_or_make(&mut self.control, || {
            Ok(Follower::open(runtime.block_on(ControlTopic::open(kafka, registry, admin.clone()))?)?)
        })?;
        control.read_to_end()?;
        let mut standing = Vec::new();
        for stop in control.with(stops) {
            let gone_on = has_gone_on(&mut self.groups, kafka, admin, &stop).unwrap_or_else(|error| {
                log_unknown(&stop, &error);
                false
            });
            if !gone_on {
                standing.push(stop);
            }
        }
        let (carts, partitions) = get_or_make(&mut self.parked, || {
            let partitions = admin.partitions(&kafka.prefixed(CartCommand::TOPIC))?;
            Ok((ParkedCarts::new(kafka, runtime.block_on(parking::codec(registry))?, runtime.clone())?, partitions))
        })?;
        let mut parked = Vec::new();
        for partition in 0..*partitions {
            let found = carts.read(partition)?;
            parked.extend(found.carts.iter().map(|(cart_id, cart)| (*cart_id, cart.clone())));
        }
        Ok(control.with(|controls| Operations::new(controls, standing, parked)))
    }
}

/// A stop whose end cannot be found out is shown.
fn log_unknown(stop: &Stopped, error: &anyhow::Error) {
    static LIMIT: LogLimit = LogLimit::new();
    if let Some(left_out) = LIMIT.admit() {
        tracing::warn!(
            group = stop.group,
            partition = stop.partition,
            error = format!("{error:#}"),
            left_out,
            "it is not known whether a stopped partition has gone on"
        );
    }
}

/// Whether a group has committed past the record of a stop, or was dropped with its generation: a member that died while it was stopped
/// has left the stop behind.
fn has_gone_on(
    groups: &mut BTreeMap<String, GroupProgress>,
    kafka: &KafkaArgs,
    admin: &Admin,
    stop: &Stopped,
) -> anyhow::Result<bool> {
    let progress = match groups.entry(stop.group.clone()) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            entry.insert(GroupProgress::new(kafka, &kafka.prefixed(&stop.group), &kafka.prefixed(stop.topic))?)
        }
    };
    if let Some(next) = progress.committed([stop.partition])?.get(&stop.partition) {
        return Ok(*next > stop.offset);
    }
    Ok(is_later_generation(&stop.group) && !admin.groups()?.contains(&kafka.prefixed(&stop.group)))
}

/// Whether a group is that of a later generation. While it is at work it has members or offsets, so one that does not exist was dropped.
fn is_later_generation(group: &str) -> bool {
    let generation = READ_MODELS.iter().find_map(|model| model.generation_of_group(group));
    generation.is_some_and(|generation| generation != Generation::FIRST)
}

fn get_or_make<T>(slot: &mut Option<T>, make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<&mut T> {
    match slot {
        Some(made) => Ok(made),
        None => Ok(slot.insert(make()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_of_later_generations_are_dropped() {
        for (group, is_later) in [("popular-items-g2", true), ("popular-items", false), ("cart-processor", false)] {
            assert_eq!(is_later_generation(group), is_later, "{group}");
        }
    }

    #[test]
    fn what_was_made_is_kept_and_what_could_not_be_made_is_tried_again() {
        let mut slot = None;
        assert!(get_or_make(&mut slot, || anyhow::bail!("no answer")).is_err());
        for made in [1, 2] {
            assert_eq!(get_or_make(&mut slot, || Ok(made)).ok(), Some(&mut 1));
        }
    }
}
