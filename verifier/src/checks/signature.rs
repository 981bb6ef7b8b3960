//! Who signed the backup.
//!
//! Only a pinned key can make a signature mean something: without one, what cannot be judged is said to be so instead
//! of passing.

use stillpoint_api::{Check, CheckKind, SignerState};

use crate::findings::{Findings, not_judged};

const KIND: CheckKind = CheckKind::Signature;

/// Judges the signer; `pinned` says whether any trusted key is pinned.
pub(crate) fn check(signer: &SignerState, pinned: bool) -> Check {
    match signer {
        SignerState::Trusted(key) => Findings::default().judge(KIND, format!("signed by the trusted key {key}")),
        SignerState::Unverified(key) => {
            not_judged(KIND, format!("unverified signer {key}: no trusted key is pinned to compare with"))
        }
        SignerState::Unsigned if !pinned => not_judged(KIND, "the backup is unsigned, and no trusted key is pinned"),
        SignerState::Unsigned => failed("the backup carries no signature, although a trusted key is pinned"),
        SignerState::Untrusted(key) => failed(&format!("signed by {key}, which is not among the pinned keys")),
        SignerState::Invalid => failed("the signature does not fit: the manifest is not the one that was signed"),
        SignerState::Unknown => not_judged(KIND, "the test ended before the signature could be read"),
    }
}

/// The signature itself cannot be read.
pub(crate) fn unreadable(reason: &str) -> Check {
    failed(reason)
}

fn failed(reason: &str) -> Check {
    let mut findings = Findings::default();
    findings.add("manifest.sig", reason);
    findings.judge(KIND, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use stillpoint_api::Judgement;

    use super::*;

    #[test]
    fn only_a_pinned_key_passes_and_only_a_pinned_key_makes_its_absence_fail() {
        let key = || "SHA256:key".to_owned();
        for (signer, pinned, expected) in [
            (SignerState::Trusted(key()), true, Judgement::Passed),
            (SignerState::Unverified(key()), false, Judgement::NotJudged),
            (SignerState::Unsigned, false, Judgement::NotJudged),
            (SignerState::Unsigned, true, Judgement::Failed),
            (SignerState::Untrusted(key()), true, Judgement::Failed),
            (SignerState::Invalid, true, Judgement::Failed),
            (SignerState::Invalid, false, Judgement::Failed),
        ] {
            let check = check(&signer, pinned);
            assert_eq!(check.judgement, expected, "{signer}");
            assert_eq!(check.findings.len(), usize::from(expected == Judgement::Failed), "{signer}");
        }
    }
}
