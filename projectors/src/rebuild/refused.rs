//! Why a rebuild is not done.

use kafka::Admin;

/// Something has to be changed before a rebuild can be done, such as a projector that still runs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// Ends a rebuild with [`Refused`].
pub(super) fn refuse<T>(reason: String) -> anyhow::Result<T> {
    Err(Refused(reason).into())
}

/// Refuses while a group has members; `group` is the full name. Blocks.
pub(super) fn ensure_idle(admin: &Admin, group: &str) -> anyhow::Result<()> {
    if admin.has_members(group)? { refuse(format!("group {group} has members: stop them first")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_refusal_is_told_apart_from_a_failure() {
        let refused = refuse::<()>(String::from("it runs")).context("a rebuild").expect_err("it was refused");
        assert!(refused.is::<Refused>());
        assert_eq!(format!("{refused:#}"), "a rebuild: it runs");
        assert!(!anyhow::anyhow!("no answer").is::<Refused>());
    }
}
