//! The thread that follows what operators want: it looks every few seconds while somebody looks at the page, and reads from a topic what is
//! new there.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cart::CartCommand;
use cart::contract::Contract as _;
use control::{ControlTopic, Follower};
use kafka::{Admin, Registry};
use parking::ParkedCarts;
use service::LogLimit;

use crate::follow::Context;
use crate::operations::Operations;

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
                            "pauses, skips and parked carts are not known"
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
        let (carts, partitions) = get_or_make(&mut self.parked, || {
            let partitions = admin.partitions(&kafka.prefixed(CartCommand::TOPIC))?;
            Ok((ParkedCarts::new(kafka, runtime.block_on(parking::codec(registry))?, runtime.clone())?, partitions))
        })?;
        let mut parked = Vec::new();
        for partition in 0..*partitions {
            let found = carts.read(partition)?;
            parked.extend(found.carts.iter().map(|(cart_id, cart)| (*cart_id, cart.clone())));
        }
        Ok(control.with(|controls| Operations::new(controls, parked)))
    }
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
    fn what_was_made_is_kept_and_what_could_not_be_made_is_tried_again() {
        let mut slot = None;
        assert!(get_or_make(&mut slot, || anyhow::bail!("no answer")).is_err());
        for made in [1, 2] {
            assert_eq!(get_or_make(&mut slot, || Ok(made)).ok(), Some(&mut 1));
        }
    }
}
