//! Whether what was found between two generations allows a switch.

use super::args::Accepted;
use super::report::Diff;

/// Why these differences are not accepted; `None`: they are.
pub(super) fn not_accepted(accepted: Option<&Accepted>, diff: &Diff) -> Option<String> {
    let accepted = match accepted {
        Some(Accepted::Any) => return None,
        Some(Accepted::Digest(digest)) => digest.as_str(),
        Some(Accepted::Equal) | None => "none",
    };
    if accepted == diff.digest {
        return None;
    }
    Some(if diff.digest == "none" {
        String::from("there is no difference: --accept-diff none")
    } else {
        format!("the difference is not the accepted one ({accepted}):\n{diff}")
    })
}

/// Whether the tables do not stand at one offset although both are paused; `behind` are the partitions in which the first generation
/// may stand further back. Readers of the second one must not miss what rows of the first one include.
pub(super) fn apart(diff: &Diff, behind: &[i32]) -> Option<String> {
    let [from, to] = diff.generations;
    let [of_from, of_to] = &diff.added;
    if let Some((partition, records)) = of_to.first_key_value() {
        return Some(format!(
            "generation {to} lacks {records} records of partition {partition} that generation {from} shows"
        ));
    }
    let (partition, records) = of_from.iter().find(|(partition, _)| !behind.contains(partition))?;
    Some(format!("generation {from} lacks {records} records of partition {partition}, although both are paused"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cart::Generation;
    use cart::contract::READ_MODELS;

    use super::*;
    use crate::generations::compare::Comparison;

    fn compared(comparison: &Comparison) -> Diff {
        let generations = [1, 2].map(|number| Generation::new(number).expect("a generation"));
        Diff::new(READ_MODELS[0], generations, comparison, 0)
    }

    #[test]
    fn only_the_digest_of_the_current_diff_is_accepted() {
        let equal = compared(&Comparison::default());
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let different = Diff { digest: digest("a"), ..equal.clone() };
        let accepted = |text: &str| text.parse::<Accepted>().ok();
        let is_refused = |text: &str, diff: &Diff| not_accepted(accepted(text).as_ref(), diff).is_some();
        assert!(!is_refused("none", &equal) && !is_refused(&digest("a"), &different));
        assert!(
            is_refused("none", &different) && is_refused(&digest("b"), &different) && is_refused(&digest("a"), &equal)
        );
        assert!(!is_refused("any", &equal) && !is_refused("any", &different));
        assert!(not_accepted(None, &equal).is_none() && not_accepted(None, &different).is_some());
    }

    #[test]
    fn only_the_first_generation_may_stand_back_and_only_where_it_does_not_run() {
        let added = |of_from: &[(i32, u64)], of_to: &[(i32, u64)]| {
            let added = [of_from, of_to].map(|of| of.iter().copied().collect::<BTreeMap<_, _>>());
            compared(&Comparison { added, ..Comparison::default() })
        };
        assert_eq!(apart(&added(&[], &[]), &[]), None);
        assert_eq!(apart(&added(&[(3, 7)], &[]), &[3]), None);
        assert!(apart(&added(&[(3, 7), (4, 1)], &[]), &[3]).is_some_and(|text| text.contains("partition 4")));
        // Its member wrote them and died before it committed: readers have seen them.
        assert!(apart(&added(&[], &[(3, 20)]), &[3]).is_some_and(|text| text.contains("generation 2 lacks 20")));
    }
}
