//! What to say of a topic that does not exist: mostly the prefix is wrong, or `setup` ran with another one.

use std::collections::BTreeSet;

use rdkafka::metadata::MetadataTopic;

use super::{Admin, CHECK_TIMEOUT};

/// How many prefixes to name. A cluster that is used for tests has hundreds.
const NAMED_MAX: usize = 10;

impl Admin {
    /// Why there may be no such topic: the prefix that was used, and those that have one.
    pub(super) fn explain_missing(&self, topic: &str) -> String {
        let used = &self.args.topic_prefix;
        let metadata = self.client().inner().fetch_metadata(None, CHECK_TIMEOUT);
        let existing = match &metadata {
            Ok(metadata) => found(&prefixes(metadata.topics().iter().map(MetadataTopic::name), topic, used)),
            Err(_) => String::from("the brokers did not list the prefixes that have it"),
        };
        format!(
            "it does not exist; `setup` creates it. The prefix was '{used}' (--topic-prefix, TOPIC_PREFIX); {existing}"
        )
    }
}

/// The prefixes with which the topics of other installations begin that end as this one does behind its own prefix.
fn prefixes<'a>(topics: impl Iterator<Item = &'a str>, missing: &str, used: &str) -> BTreeSet<&'a str> {
    let name = missing.strip_prefix(used).unwrap_or(missing);
    if name.is_empty() {
        return BTreeSet::new();
    }
    topics.filter_map(|topic| topic.strip_suffix(name)).collect()
}

fn found(prefixes: &BTreeSet<&str>) -> String {
    if prefixes.is_empty() {
        return String::from("no other prefix has it on this cluster");
    }
    let named: Vec<_> = prefixes.iter().take(NAMED_MAX).map(|prefix| format!("'{prefix}'")).collect();
    let more = prefixes.len() - named.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("these prefixes on this cluster have it: {}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPICS: [&str; 5] = ["demo_2-commands", "commands", "demo_1-commands", "demo_1-events", "commands-old"];

    fn found_for(missing: &str, used: &str) -> String {
        found(&prefixes(TOPICS.into_iter(), missing, used))
    }

    #[test]
    fn names_the_prefixes_that_have_the_topic() {
        let all = "these prefixes on this cluster have it: '', 'demo_1-', 'demo_2-'";
        assert_eq!(found_for("wrong-commands", "wrong-"), all);
        assert_eq!(found_for("commands", ""), all);
        assert_eq!(found_for("wrong-events", "wrong-"), "these prefixes on this cluster have it: 'demo_1-'");
        assert_eq!(found_for("wrong-replies", "wrong-"), "no other prefix has it on this cluster");
        assert_eq!(found_for("wrong-", "wrong-"), "no other prefix has it on this cluster");
    }

    #[test]
    fn names_at_most_ten_prefixes() {
        let topics: Vec<_> = (10..25).map(|number| format!("{number}-t")).collect();
        let text = found(&prefixes(topics.iter().map(String::as_str), "t", ""));
        assert!(text.ends_with("'18-', '19-' and 5 more"), "{text}");
    }
}
