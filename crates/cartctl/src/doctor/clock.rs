//! Whether a server's clock and this machine's agree.

use std::time::{Duration, UNIX_EPOCH};

use super::report::Verdict;

/// Clocks that are set by NTP differ by less.
const USUAL: Duration = Duration::from_secs(2);

/// Beyond it one of the clocks is not set at all.
const WRONG: Duration = Duration::from_secs(60);

/// What to do about a clock.
const CHANGE: &str =
    "set both clocks by NTP; where the others agree with this machine, the server's clock is the wrong one";

/// This machine's time, in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let now = fail_points::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Judges a server's time, which it said between two times of this machine, all in milliseconds since 1970.
pub(super) fn judge(before_ms: i64, server_ms: i64, after_ms: i64) -> Verdict {
    let (distance, way) = match server_ms {
        server if server < before_ms => (before_ms.abs_diff(server), "behind"),
        server => (server.saturating_sub(after_ms).max(0).unsigned_abs(), "ahead of"),
    };
    let distance = Duration::from_millis(distance);
    let asked = format!("asked for {} ms", before_ms.abs_diff(after_ms));
    let found = match distance.is_zero() {
        true => format!("the server's clock and this machine's agree ({asked})"),
        false => format!("the server's clock is {distance:.1?} {way} this machine's ({asked})"),
    };
    if distance <= USUAL {
        Verdict::holds(found)
    } else if distance <= WRONG {
        Verdict::limited(found, CHANGE)
    } else {
        Verdict::fails(found, CHANGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_wrong_and_the_time_of_the_question_is_not_counted() {
        let now = 1_800_000_000_000;
        assert!(matches!(judge(now, now + 4_000, now + 5_000), Verdict::Holds { .. }), "the answer took 5 s");
        assert!(matches!(judge(now, now - 2_000, now), Verdict::Holds { .. }));
        assert!(matches!(judge(now, now + 12_000, now + 5_000), Verdict::Limited { .. }));
        let Verdict::Fails { found, .. } = judge(now, now - 3_600_000, now + 10) else { panic!("an hour behind") };
        assert!(found.contains("3600.0s behind"), "{found}");
        assert!(matches!(judge(now, now + 3_600_000, now + 10), Verdict::Fails { .. }));
    }
}
