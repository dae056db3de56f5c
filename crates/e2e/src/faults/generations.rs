//! A read model that is built anew while it is read: built, compared, switched to, perhaps switched back; then the generation that
//! readers do not see is dropped. A number of a generation is used once, so this may be repeated as often as a plan wants.

use std::time::Duration;

use anyhow::ensure;
use cart::Generation;
use cart::contract::{READ_MODELS, ReadModel, Store};

use super::environment::{FaultEnvironment, Place, SESSION, instances_of};
use super::plan::{Fault, Plan};
use crate::harness::{Installation, Service};

/// The projectors of the new generation, beside the permanent ones.
const BESIDE: [&str; 2] = ["2", "3"];

/// How long one `cartctl` may take: a rebuild applies the purchases of half an hour, a switch waits for both groups.
const DEADLINE: Duration = Duration::from_secs(300);

/// How long readers see the new generation before it is decided whether it stays.
const SEEN: Duration = Duration::from_secs(5);

/// Which generation readers see in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// The new one.
    Stays,
    /// The one before, again.
    Back,
}

impl End {
    const ALL: [Self; 2] = [Self::Stays, Self::Back];

    fn name(self) -> &'static str {
        match self {
            Self::Stays => "stays",
            Self::Back => "back",
        }
    }
}

/// Each read model with each end.
fn cases() -> Vec<(ReadModel, End)> {
    READ_MODELS.into_iter().flat_map(|model| End::ALL.map(|end| (model, end))).collect()
}

/// Reads of clients meet no error meanwhile, and no quantity that they read falls. They read Cassandra's tables: that no value of
/// PostgreSQL's falls, and no balance, is seen by the watcher of the run alone.
pub(super) async fn rebuild_switch(
    environment: &mut FaultEnvironment,
    fault: Fault,
    plan: &mut Plan,
) -> anyhow::Result<String> {
    let (model, end) = plan.next_of("rebuilt", &cases());
    tracing::info!(model = model.group, end = end.name(), "to be built anew");
    let readers = FaultEnvironment::readers()?;
    let rebuilt = rebuild(environment, model, end).await;
    let read = readers.stop();
    rebuilt?;
    let (reads, errors, first) = (read.reads, read.errors, read.first_error.unwrap_or_default());
    ensure!(reads > 0 && errors == 0, "{errors} of {reads} reads beside a rebuild of {} failed: {first}", model.group);
    Ok(format!("{fault} {}, {}", model.group, end.name()))
}

async fn rebuild(environment: &mut FaultEnvironment, model: ReadModel, end: End) -> anyhow::Result<()> {
    let name = model.group;
    let before = environment.generation(name);
    cartctl(environment, &[&["rebuild", name][..], &SESSION].concat(), "had caught up").await?;
    let built = newest(environment.installation(), model).await?;
    ensure!(built > before, "`cartctl rebuild {name}` has made no generation after {before}: the newest is {built}");
    let beside: [Place; 2] = BESIDE.map(|instance| (Service::Projector(name), instance));
    for place in beside {
        environment.start_beside(place, built)?;
    }
    environment.all_ready().await?;
    cartctl(environment, &["diff", name], "diff none").await?;
    let number = built.to_string();
    let switch = ["switch", name, "--to", &number, "--accept-diff", "none", "--by", "faults"];
    cartctl(environment, &switch, &format!("readers see generation {built} after {before}")).await?;
    tokio::time::sleep(SEEN).await;
    let unseen = match end {
        End::Stays => {
            keep(environment, model, built).await?;
            before
        }
        End::Back => {
            let back = ["switch", name, "--back", "--by", "faults"];
            cartctl(environment, &back, &format!("readers see generation {before} after {built}")).await?;
            built
        }
    };
    for place in beside {
        environment.dismiss(place).await?;
    }
    environment.all_ready().await?;
    let number = unseen.to_string();
    cartctl(environment, &["drop", name, "--generation", &number], "are deleted").await
}

/// Lets the permanent projectors keep another generation.
async fn keep(environment: &mut FaultEnvironment, model: ReadModel, generation: Generation) -> anyhow::Result<()> {
    environment.set_generation(model, generation);
    for place in instances_of(model.group) {
        environment.terminate(place).await?;
        environment.start(place)?;
    }
    environment.all_ready().await
}

async fn cartctl(environment: &FaultEnvironment, args: &[&str], says: &str) -> anyhow::Result<()> {
    environment.installation().cartctl(args, &[], DEADLINE).await?.with(0, says).map(drop)
}

/// The newest generation that was ever built.
async fn newest(installation: &Installation, model: ReadModel) -> anyhow::Result<Generation> {
    let pointer = match model.store {
        Store::Cassandra => {
            let session = cassandra::connect(installation.cassandra()).await?;
            cassandra::read_models::pointer(&session, model).await?
        }
        Store::Postgres => {
            let database = installation.database().connect().await?;
            postgres::read_models::pointer(&database, model).await?
        }
    };
    Ok(pointer.newest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_read_model_is_rebuilt_with_each_end_before_one_comes_again() {
        let mut plan = Plan::of(Vec::new(), 7);
        let drawn = cases().into_iter().map(|_| plan.next_of("rebuilt", &cases()));
        let drawn: BTreeSet<_> = drawn.map(|(model, end)| (model.group, end)).collect();
        assert_eq!(drawn.len(), READ_MODELS.len() * End::ALL.len());
    }
}
