//! What the doctor makes for its trials: names with the time, so that what a killed doctor has left is known and removed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Begins every name, behind the installation's prefix.
const MARK: &str = "cart_doctor_";

/// What is older belongs to a doctor that was killed: a run takes seconds.
const LEFT_AFTER: Duration = Duration::from_secs(15 * 60);

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A name that no other run has: of a-z, 0-9 and _, with the time in it.
pub(super) fn name() -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("{MARK}{}_{}", now_s(), &random[..8])
}

/// Whether a run that has ended long ago has left this, by its name without the installation's prefix.
pub(super) fn is_left(name: &str) -> bool {
    is_left_at(name, now_s())
}

fn is_left_at(name: &str, now_s: u64) -> bool {
    let made_at = name.strip_prefix(MARK).and_then(|rest| rest.split_once('_')).and_then(|(time, _)| time.parse().ok());
    made_at.is_some_and(|made_at: u64| now_s.saturating_sub(made_at) > LEFT_AFTER.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_old_name_of_a_doctor_is_left() {
        let new = name();
        assert!(new.len() <= 48, "{new} is no keyspace's name");
        assert!(!is_left(&new));
        assert!(is_left_at(&new, now_s() + LEFT_AFTER.as_secs() + 1));
        assert!(is_left_at("cart_doctor_1000_0f-out", 10_000_000));
        for other in ["cart", "cart_doctor", "cart_doctor_x_y", "shop.cart_doctor_1000_0f", "cart-commands"] {
            assert!(!is_left_at(other, 10_000_000), "{other}");
        }
    }
}
