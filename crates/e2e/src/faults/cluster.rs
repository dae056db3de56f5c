//! Faults of a cluster: one broker or node is away, or other brokers lead. Clients may wait, and must not get errors.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kafka::{Admin, PartitionReplicas};
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::{Consistency, Statement};

use super::environment::FaultEnvironment;
use super::plan::{Fault, LONG_PAUSE, Plan};
use crate::harness::{CLUSTER_NODES, Node, Server, wait_until};

/// How long a broker or node is away after the others have taken over.
const AWAY: Duration = Duration::from_secs(10);

/// How long the others may take to take over, on a busy machine: the broker's session, and an election of the controller.
const FAILOVER_DEADLINE: Duration = Duration::from_secs(60);

/// How long a restarted broker or node may take to catch up.
const WHOLE_DEADLINE: Duration = Duration::from_secs(120);

/// The topics whose partition leaders are the coordinators of groups, and of transactions.
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// The checks of `cartctl doctor` that only a cluster passes.
const COPIES: [&str; 4] = ["topic-copies", "transaction-state-copies", "offset-copies", "keyspace-copies"];

/// How long the doctor may take, on a busy machine.
const DOCTOR_DEADLINE: Duration = Duration::from_secs(180);

/// `cartctl doctor` finds three copies of everything, and nothing that is wrong. A check that could not be made is no finding.
pub(super) async fn doctor_finds_three_copies(environment: &FaultEnvironment) -> anyhow::Result<()> {
    let mut doctor = environment.installation().spawn("doctor", "cartctl", ["doctor"])?;
    doctor.ended(DOCTOR_DEADLINE).await?;
    let report = doctor.log();
    ensure!(!report.contains("FAILED     "), "the doctor finds something wrong with a cluster that is right: {report}");
    for check in COPIES {
        ensure!(report.contains(&format!("ok         {check}: ")), "{check} is not ok: {report}");
    }
    Ok(())
}

pub(super) async fn kill_any_broker(
    environment: &FaultEnvironment,
    fault: Fault,
    plan: &mut Plan,
) -> anyhow::Result<String> {
    let broker = plan.any(&Node::all(Server::Kafka));
    kill_broker(environment, broker).await?;
    Ok(format!("{fault} {broker}"))
}

pub(super) async fn kill_group_coordinator(environment: &FaultEnvironment, fault: Fault) -> anyhow::Result<String> {
    let group = environment.installation().kafka().prefixed("cart-processor");
    let broker = coordinator(environment, OFFSETS_TOPIC, &group)?;
    kill_broker(environment, broker).await?;
    Ok(format!("{fault} {broker}"))
}

pub(super) async fn kill_transaction_coordinator(
    environment: &FaultEnvironment,
    fault: Fault,
    plan: &mut Plan,
) -> anyhow::Result<String> {
    // Instances and workers are 0 and 1.
    let id = format!("cart-processor-{}-{}", plan.below(2), plan.below(2));
    let broker = coordinator(environment, TRANSACTIONS_TOPIC, &environment.installation().kafka().prefixed(&id))?;
    kill_broker(environment, broker).await?;
    Ok(format!("{fault} {broker}"))
}

pub(super) async fn kill_node(environment: &FaultEnvironment, fault: Fault, plan: &mut Plan) -> anyhow::Result<String> {
    let node = plan.any(&Node::all(Server::Cassandra));
    environment.servers.kill9(node)?;
    tokio::time::sleep(AWAY).await;
    tokio::task::block_in_place(|| environment.servers.up())?;
    whole(environment).await?;
    Ok(format!("{fault} {node}"))
}

pub(super) async fn pause_node(
    environment: &FaultEnvironment,
    fault: Fault,
    plan: &mut Plan,
) -> anyhow::Result<String> {
    let node = plan.any(&Node::all(Server::Cassandra));
    environment.servers.pause(node)?;
    tokio::time::sleep(LONG_PAUSE).await;
    environment.servers.resume(node)?;
    whole(environment).await?;
    Ok(format!("{fault} {node}"))
}

/// Kills a broker, waits until others lead its partitions, restarts it, and waits until it has caught up and leads again.
async fn kill_broker(environment: &FaultEnvironment, broker: Node) -> anyhow::Result<()> {
    let admin = Admin::new(environment.installation().kafka())?;
    let id = i32::from(broker.number);
    let led = copies(&admin)?.iter().filter(|copies| copies.leader == id).count();
    tracing::info!(%broker, led, "a broker is killed");
    ensure!(led > 0, "{broker} leads no partition, so killing it would show nothing");
    environment.servers.kill9(broker)?;
    wait_until(&format!("the others to go on without {broker}"), FAILOVER_DEADLINE, async || {
        let copies = copies(&admin).map_err(|error| format!("{error:#}"))?;
        let waiting = copies.iter().filter(|copies| copies.leader == id || copies.in_sync.contains(&id)).count();
        if waiting == 0 { Ok(()) } else { Err(format!("{waiting} partitions wait for it")) }
    })
    .await?;
    tokio::time::sleep(AWAY).await;
    tokio::task::block_in_place(|| environment.servers.up())?;
    whole(environment).await?;
    // Without this the others would lead for minutes, and the next killed broker might lead nothing.
    elect(environment, &admin, |copies| copies.replicas.first() == Some(&copies.leader)).await
}

/// Makes the replica after the leader the new leader, in every partition.
pub(super) async fn move_leaders(environment: &FaultEnvironment) -> anyhow::Result<()> {
    let admin = Admin::new(environment.installation().kafka())?;
    let (mut partitions, mut leaders) = (Vec::new(), HashMap::new());
    for PartitionReplicas { topic, partition, leader, mut replicas, .. } in copies(&admin)? {
        let place = replicas.iter().position(|replica| *replica == leader);
        replicas.rotate_left(place.with_context(|| format!("{topic}/{partition} has no leader"))? + 1);
        partitions.push(serde_json::json!({ "topic": topic, "partition": partition, "replicas": replicas }));
        leaders.insert((topic, partition), replicas[0]);
    }
    let file = environment.servers.folder().join("reassignment.json");
    std::fs::write(&file, serde_json::json!({ "version": 1, "partitions": partitions }).to_string())
        .with_context(|| format!("writing {}", file.display()))?;
    let args = ["--reassignment-json-file", &file.display().to_string(), "--execute"];
    let reassign = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
    tokio::task::block_in_place(|| environment.servers.kafka_tool(reassign, &args))?;
    elect(environment, &admin, |copies| leaders.get(&(copies.topic.clone(), copies.partition)) == Some(&copies.leader))
        .await?;
    whole(environment).await
}

/// Elects the first replica of each partition, until `is_led` holds for all.
async fn elect(
    environment: &FaultEnvironment,
    admin: &Admin,
    is_led: impl Fn(&PartitionReplicas) -> bool,
) -> anyhow::Result<()> {
    let args = ["--election-type", "PREFERRED", "--all-topic-partitions"];
    let tool = "org.apache.kafka.tools.LeaderElectionCommand";
    wait_until("the wanted leaders to lead", WHOLE_DEADLINE, async || {
        // It fails if one replica was not ready to lead, but the others were elected.
        let asked = tokio::task::block_in_place(|| environment.servers.kafka_tool(tool, &args));
        let copies = copies(admin).map_err(|error| format!("{error:#}"))?;
        match copies.iter().filter(|copies| !is_led(copies)).count() {
            0 => Ok(()),
            others => Err(format!("others lead {others} partitions: {asked:?}")),
        }
    })
    .await
}

/// The broker that leads the partition of a group, or of a transactional id.
fn coordinator(environment: &FaultEnvironment, topic: &str, name: &str) -> anyhow::Result<Node> {
    let admin = Admin::new(environment.installation().kafka())?;
    let mut all = copies(&admin)?;
    all.retain(|copies| copies.topic == topic);
    let partition = coordinating_partition(name, all.len()).with_context(|| format!("{topic} has no partitions"))?;
    let leader = all.iter().find(|copies| copies.partition == partition).map(|copies| copies.leader);
    let number = leader.and_then(|leader| u8::try_from(leader).ok());
    let number = number.with_context(|| format!("{topic}/{partition}, which {name} needs, has no leader"))?;
    Ok(Node { server: Server::Kafka, number })
}

/// Java's hash of the name. Source: `GroupMetadataManager.partitionFor` and `TransactionStateManager.partitionFor` of
/// Apache Kafka.
fn coordinating_partition(name: &str, partitions: usize) -> Option<i32> {
    let hash = name.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX).checked_rem(i32::try_from(partitions).ok()?)
}

fn copies(admin: &Admin) -> anyhow::Result<Vec<PartitionReplicas>> {
    Ok(tokio::task::block_in_place(|| admin.copies())?)
}

/// Waits until every replica is in sync, and every Cassandra node sees the others. Then the next one may be killed.
async fn whole(environment: &FaultEnvironment) -> anyhow::Result<()> {
    let admin = Admin::new(environment.installation().kafka())?;
    wait_until("every copy to be complete", WHOLE_DEADLINE, async || {
        let copies = copies(&admin).map_err(|error| format!("{error:#}"))?;
        let is_behind = |copies: &&PartitionReplicas| copies.leader < 0 || copies.in_sync.len() < copies.replicas.len();
        match copies.iter().filter(is_behind).count() {
            0 => Ok(()),
            behind => Err(format!("{behind} partitions have copies that are behind")),
        }
    })
    .await?;
    wait_until("all Cassandra nodes to see each other", WHOLE_DEADLINE, async || {
        nodes_see_each_other(environment).await.map_err(|error| format!("{error:#}"))
    })
    .await
}

/// Sends each node a query that needs all of them.
async fn nodes_see_each_other(environment: &FaultEnvironment) -> anyhow::Result<()> {
    let session = cassandra::connect(environment.installation().cassandra()).await?;
    let nodes = session.get_cluster_state().get_nodes_info().to_vec();
    ensure!(nodes.len() == usize::from(CLUSTER_NODES), "{} nodes are known", nodes.len());
    for node in nodes {
        let mut ask = Statement::new("SELECT sequence_number FROM cart_journal LIMIT 1");
        ask.set_consistency(Consistency::All);
        let at = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(node.clone()), None);
        ask.set_load_balancing_policy(Some(at));
        session.query_unpaged(ask, ()).await.with_context(|| format!("asking {}", node.address))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::coordinating_partition;

    #[test]
    fn computes_the_partition_of_a_coordinator() {
        // "hello".hashCode() is 99162322, "polygenelubricants".hashCode() the smallest number there is.
        assert_eq!(coordinating_partition("hello", 50), Some(22));
        assert_eq!(coordinating_partition("polygenelubricants", 12), Some(0));
        assert_eq!(coordinating_partition("hello", 0), None);
    }
}
