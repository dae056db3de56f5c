//! `cartctl doctor`: asks the servers for everything that this system relies on.
//!
//! ```text
//! kafka ──────┐   own topics, group, transactional id; settings of brokers; this installation's topics
//! registry ───┤   own subject;                                             this installation's subjects
//! cassandra ──┼─▶ own keyspace;                        settings of nodes;  this installation's keyspace
//! postgres ───┘   own schema;                          settings;           this installation's database
//!                   └─▶ findings: holds or not, what goes wrong without it, what to do
//! ```
//!
//! What can be tried out is tried out, so that the answer is also right for a server that only says that it is Kafka. What
//! cannot be tried without a disaster, such as the loss of a disk, is judged by the settings. Judging is apart from asking: it is
//! tested without servers. `own` names what a run makes. `users` judges the grants of the services' users, which each server is asked
//! for. The four servers are asked at the same time.
//!
//! It uses the services' own code where they make something (topics, keyspace, tables): it must find out whether that works.

mod args;
mod cassandra;
mod clock;
mod denied;
mod kafka;
mod own;
mod postgres;
mod registry;
mod report;
mod users;

pub use args::Args;
pub use report::{Check, Finding, Report, Server, State, Verdict};

/// All checks, in the order of the report.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    kafka::checks().chain(registry::checks()).chain(cassandra::checks()).chain(postgres::checks())
}

/// Makes all checks. A server that does not answer is a finding, not an error.
///
/// # Errors
/// A bug ended the checks of a server.
pub async fn doctor(args: &Args) -> anyhow::Result<Report> {
    // Each on a task of its own, since the calls of librdkafka block.
    let Args { kafka: broker, cassandra: nodes, database, user, .. } = args.clone();
    let (for_registry, for_journal) = (broker.clone(), broker.clone());
    let [of_kafka, of_cassandra, of_postgres] = [user.clone(), user.clone(), user];
    let kafka = tokio::spawn(async move { kafka::check_all(&broker, &of_kafka).await });
    let registry = tokio::spawn(async move { registry::check_all(&for_registry).await });
    let cassandra = tokio::spawn(async move { cassandra::check_all(&nodes, &for_journal, &of_cassandra).await });
    let postgres = tokio::spawn(async move { postgres::check_all(&database, &of_postgres).await });
    let mut findings = Vec::new();
    for checks in [kafka, registry, cassandra, postgres] {
        findings.extend(checks.await?);
    }
    Ok(Report::new(findings))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_page_lists_every_check_and_no_other() {
        let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/deployment.md"));
        let page = fs::read_to_string(page).expect("a file of the repository");
        let section = page.split("\n## ").find(|section| section.starts_with("Check the servers")).expect("a section");
        let listed = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let listed: BTreeSet<_> = listed.map(|(name, _)| name).collect();
        let checks: Vec<_> = super::checks().map(|check| check.name).collect();
        let names: BTreeSet<_> = checks.iter().copied().collect();
        assert_eq!(names.len(), checks.len(), "two checks have one name");
        assert_eq!(listed, names);
    }
}
