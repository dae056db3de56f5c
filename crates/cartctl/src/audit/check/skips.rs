//! Compares skips with the records that they are for.

use crate::audit::evidence::Evidence;
use crate::audit::report::{Findings, Kind};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for skip in evidence.skips.iter().filter(|skip| !skip.holds()) {
        let found = skip.found.as_ref().map(|sha256| format!("sha256:{sha256}"));
        let found = found.as_ref().map(|sha256| sha256 as &dyn std::fmt::Display);
        findings.add(Kind::SkipDiffers, format!("skip of {skip}"), Some(&format!("sha256:{}", skip.sha256)), found);
    }
}
