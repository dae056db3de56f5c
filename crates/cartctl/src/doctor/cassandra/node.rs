//! Questions to one node.

use std::sync::Arc;

use scylla::client::execution_profile::ExecutionProfile;
use scylla::cluster::Node;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::{Consistency, Statement};

/// A statement that this node answers itself.
pub(super) fn at(node: &Arc<Node>, text: &str) -> Statement {
    let balancing = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(node.clone()), None);
    let profile = ExecutionProfile::builder().load_balancing_policy(balancing).consistency(Consistency::One).build();
    let mut statement = Statement::new(text);
    statement.set_execution_profile_handle(Some(profile.into_handle()));
    statement.set_is_idempotent(true);
    statement
}
