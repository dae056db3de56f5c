//! Kafka: what its brokers do with the doctor's own records, and how this installation's topics are.

mod copies;
mod grants;
mod installation;
mod records;
mod topics;
mod transactions;

use kafka::{Admin, KafkaArgs};

use self::grants::GRANTS;
use self::topics::{Topics, check, remove_left};
use super::report::{Check, Finding, Verdict};
use crate::grants::Users;

const REACHABLE: Check = check("kafka-reachable", "no service starts", "Describe on the cluster");
const OWN: Check = check(
    "own-topics",
    "the checks below that use topics of their own cannot be made; `setup` needs the same permission",
    "Create, Delete, Describe, DescribeConfigs, Read and Write on topics, and Delete and Read on groups, that begin with the prefix and cart_doctor_",
);

/// All checks of this server.
pub(super) fn checks() -> impl Iterator<Item = &'static Check> {
    let own = [&REACHABLE, &OWN].into_iter();
    own.chain(records::CHECKS).chain(transactions::CHECKS).chain(installation::CHECKS).chain([&GRANTS])
}

/// Makes all of them.
pub(super) async fn check_all(args: &KafkaArgs, users: &Users) -> Vec<Finding> {
    let reached = async {
        let admin = Admin::new(args)?;
        admin.check().await?;
        anyhow::Ok(admin)
    };
    let admin = match reached.await {
        Ok(admin) => admin,
        Err(error) => return vec![Finding::unknown(&REACHABLE, &error)],
    };
    let left = remove_left(args, &admin).await;
    let found = format!("{} answers", args.kafka_bootstrap_servers);
    let mut findings = vec![Finding::new(&REACHABLE, left.map(|()| Verdict::holds(found)))];
    findings.extend(try_out(args, &admin).await);
    findings.extend(installation::check(args, &admin).await);
    findings.push(Finding::new(&GRANTS, grants::look(args, users, &admin).await));
    findings
}

/// Makes the trials, and removes what they have made.
async fn try_out(args: &KafkaArgs, admin: &Admin) -> Vec<Finding> {
    let topics = Topics::new(args);
    let mut created = topics.create(admin).await;
    let mut trials = Vec::new();
    if created.is_ok() {
        trials.extend(records::first(args, admin, &topics).await);
        trials.extend(transactions::run(args, admin, &topics));
        trials.extend(records::last(args, admin, &topics).await);
    }
    // One may be there though the creation has failed.
    let removed = topics.remove(admin).await;
    if let (true, Err(error)) = (created.is_ok(), removed) {
        created = Err(error.context("the doctor's topics could not be removed"));
    }
    trials.insert(0, Finding::new(&OWN, created));
    trials
}
