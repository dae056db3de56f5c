//! What `cartctl parked retry` and `cartctl parked rows retry` print.

use std::fmt;

use serde::Serialize;

use crate::operate::Outcome;

/// What is tried, in words.
#[derive(Debug)]
pub(super) struct Words {
    /// One of them.
    pub(super) one: &'static str,
    /// What may keep it from being tried, as a question.
    pub(super) why_not_tried: &'static str,
}

/// Another try of parked carts or rows; its fields are those of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Retried<T> {
    /// What is meant, as it was before the request.
    pub(super) selected: Vec<T>,
    pub(super) is_dry_run: bool,
    /// `None`: it was not waited for.
    pub(super) result: Option<Tried<T>>,
    #[serde(skip)]
    pub(super) words: &'static Words,
}

/// What has become of the tries.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tried<T> {
    pub(super) live: usize,
    pub(super) still_parked: Vec<T>,
    /// So many of these were not tried in time.
    pub(super) not_tried: usize,
    /// Seconds that it was waited for at most.
    #[serde(skip)]
    pub(super) wait_s: u64,
}

impl<T> Retried<T> {
    pub(super) fn new(selected: Vec<T>, words: &'static Words) -> Self {
        Self { selected, is_dry_run: false, result: None, words }
    }

    /// What was not tried in time may be live later. So it outweighs what has failed again.
    pub(super) fn outcome(self) -> Outcome<Self> {
        let numbers = self.result.as_ref().map(|tried| (tried.not_tried, tried.still_parked.len()));
        match numbers {
            None | Some((0, 0)) => Outcome::Done(self),
            Some((0, _)) => Outcome::Failed(self),
            Some(_) => Outcome::Waiting(self),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Retried<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { selected, is_dry_run, result, words } = self;
        let (count, plural) = (selected.len(), if selected.len() == 1 { "" } else { "s" });
        if *is_dry_run {
            for one in selected {
                writeln!(f, "would be tried: {one}")?;
            }
            return write!(f, "{count} {}{plural} would be tried; nothing was requested (--dry-run)", words.one);
        }
        write!(f, "requested another try of {count} {}{plural}", words.one)?;
        let Some(Tried { live, still_parked, not_tried, wait_s }) = result else { return Ok(()) };
        for one in still_parked {
            write!(f, "\n{one}")?;
        }
        write!(f, "\n{live} live, {} still parked", still_parked.len())?;
        if *not_tried > 0 {
            let were = if *not_tried == 1 { "was" } else { "were" };
            write!(f, "\n{not_tried} {were} not tried in {wait_s} s: {}", words.why_not_tried)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static WORDS: Words = Words { one: "cart", why_not_tried: "is a cart-processor running?" };

    fn tried(live: usize, still_parked: &[&'static str], not_tried: usize) -> Retried<&'static str> {
        let result = Some(Tried { live, still_parked: still_parked.to_vec(), not_tried, wait_s: 30 });
        Retried { result, ..Retried::new(vec!["A", "B"], &WORDS) }
    }

    #[test]
    fn the_exit_code_says_what_became_of_the_tries() {
        let code = |retried: Retried<&'static str>| retried.outcome().shown(false).1;
        assert_eq!(code(Retried::new(vec!["A"], &WORDS)), 0, "it was not waited for");
        assert_eq!(code(tried(2, &[], 0)), 0);
        assert_eq!(code(tried(1, &["B"], 0)), 1);
        assert_eq!(code(tried(0, &["A", "B"], 1)), 2, "one has failed, the other is not tried");
    }

    #[test]
    fn each_state_has_its_words() {
        let text = |retried: Retried<&'static str>| retried.to_string();
        assert_eq!(text(Retried::new(vec!["A"], &WORDS)), "requested another try of 1 cart");
        let dry_run = Retried { is_dry_run: true, ..Retried::new(vec!["A", "B"], &WORDS) };
        assert_eq!(
            text(dry_run),
            "would be tried: A\nwould be tried: B\n2 carts would be tried; nothing was requested (--dry-run)"
        );
        assert_eq!(text(tried(1, &["B"], 0)), "requested another try of 2 carts\nB\n1 live, 1 still parked");
        assert!(text(tried(1, &["B"], 1)).ends_with("\n1 was not tried in 30 s: is a cart-processor running?"));
        assert!(text(tried(0, &["A", "B"], 2)).ends_with("\n2 were not tried in 30 s: is a cart-processor running?"));
    }

    #[test]
    fn json_has_the_numbers_and_what_is_still_parked() {
        let json = |retried: Retried<&'static str>| {
            let (text, _) = retried.outcome().shown(true);
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
        };
        let expected = serde_json::json!({
            "selected": ["A", "B"],
            "isDryRun": false,
            "result": {"live": 1, "stillParked": ["B"], "notTried": 0},
        });
        assert_eq!(json(tried(1, &["B"], 0)), expected);
        assert!(json(Retried::new(vec!["A"], &WORDS))["result"].is_null());
    }
}
