//! The end of pauses.

use cart::ControlKey;

use super::group::Group;
use crate::Controls;

/// A resume that an operator wants: of a group with all of its partitions, or of one partition.
#[derive(Debug, Clone, Copy)]
pub struct ResumeRequest<'a> {
    pub group: &'a Group,
    /// Only this partition.
    pub partition: Option<i32>,
}

impl ResumeRequest<'_> {
    /// The pauses that are to end; none where nothing is paused.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn ended(&self, controls: &Controls) -> Result<Vec<ControlKey>, String> {
        let name = &self.group.name;
        let of_group = controls.pause_of_group(name);
        let of = |partition| ControlKey::PausePartition { group: name.clone(), partition };
        match self.partition {
            Some(_) if of_group.is_some() => {
                Err(format!("{name} is paused as a whole: resume it whole, then pause other partitions"))
            }
            Some(partition) => {
                Ok(controls.pause_of_partition(name, partition).map(|_| of(partition)).into_iter().collect())
            }
            None => {
                let whole = of_group.map(|_| ControlKey::PauseGroup { group: name.clone() });
                Ok(whole.into_iter().chain(controls.paused_partitions(name).into_iter().map(of)).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cart::{Control, ControlRecord};

    use super::*;

    #[test]
    fn a_resume_ends_all_pauses_of_a_group_or_that_of_a_partition() {
        let group: Group = "vendor-billing".parse().expect("a group");
        let ended = |partition, controls: &Controls| {
            let keys = ResumeRequest { group: &group, partition }.ended(controls)?;
            Ok::<_, String>(keys.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let mut controls = Controls::default();
        let mut pause = |offset, key: &str| {
            let (by, reason) = (String::from("ops"), String::from("a test"));
            let control = Control::Pause { before_offset: None };
            let record = ControlRecord { by, at: chrono::DateTime::UNIX_EPOCH, reason, control };
            controls.apply(offset, key.parse().expect("a key"), Some(record));
            controls.clone()
        };
        let of_partition = pause(0, "pause/vendor-billing/1");
        assert_eq!(ended(Some(1), &of_partition), Ok(vec![String::from("pause/vendor-billing/1")]));
        assert_eq!(ended(Some(2), &of_partition), Ok(vec![]));
        let of_both = pause(1, "pause/vendor-billing");
        let expected = ["pause/vendor-billing", "pause/vendor-billing/1"].map(String::from).to_vec();
        assert_eq!(ended(None, &of_both), Ok(expected));
        assert!(ended(Some(1), &of_both).is_err_and(|reason| reason.contains("paused as a whole")));
    }
}
