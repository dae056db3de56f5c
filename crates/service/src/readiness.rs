//! Whether a service can do its work now, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Named conditions; the service is ready when all hold. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<RwLock<BTreeMap<String, Option<String>>>>,
}

impl Readiness {
    /// Says that a condition holds.
    pub fn up(&self, condition: &str) {
        self.set(condition, None);
    }

    /// Says that a condition does not hold, and why.
    pub fn down(&self, condition: &str, reason: impl std::fmt::Display) {
        self.set(condition, Some(format!("{reason:#}")));
    }

    fn set(&self, condition: &str, reason: Option<String>) {
        let mut conditions = self.conditions.write().unwrap_or_else(PoisonError::into_inner);
        // Changes only: a loop may say the same a hundred times a second.
        if conditions.get(condition) == Some(&reason) {
            return;
        }
        match &reason {
            Some(reason) => tracing::warn!(condition, reason, "not ready"),
            None => tracing::info!(condition, "ready"),
        }
        conditions.insert(condition.to_owned(), reason);
    }

    /// What does not hold, a line each; empty when the service is ready.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let conditions = self.conditions.read().unwrap_or_else(PoisonError::into_inner);
        conditions
            .iter()
            .filter_map(|(name, reason)| reason.as_ref().map(|reason| format!("{name}: {reason}")))
            .collect()
    }
}
