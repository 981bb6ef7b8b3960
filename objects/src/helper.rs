//! Pods of ours that mount a claim while something is done with it.
//!
//! Restore fills claims in them, and a backup reaches claims through them that nobody else mounts. What such a pod runs
//! and may do differs; how it is described, made, waited for and removed does not, and stands here once.
//!
//! # Guarantees
//! - No backup holds such a pod: it bears the labels that exclude it, ours and Velero's.
//! - It has no token of the cluster, its root filesystem is read-only, and it gains no privileges.
//! - A pod of the same name that does not bear our label is never removed.
//!
//! # Caveats
//! - A program that is killed leaves its pod: the pod's own program has to know when nobody wants it any more.

mod error;
mod life;
mod manifest;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

pub use self::{
    error::{Circumstances, HelperError},
    life::{Helper, has_ended, remove_seen, runs, words},
};

/// A helper pod's only container.
pub const CONTAINER: &str = "helper";
/// Where it has the claim mounted.
pub const MOUNT: &str = "/volume";
/// Where its program reads the annotation that it is told.
pub const TOLD: &str = "/told/annotation";
/// The longest name that is given here: there is room for a suffix in what a label's value may be.
const LONGEST: usize = 54;

/// What a helper pod is to be.
#[derive(Debug, Clone)]
pub struct HelperPod {
    /// Its namespace, which is its claim's.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The claim that it mounts.
    pub claim: String,
    /// The label by which it is known to be ours, and of which claim it is.
    pub label: (&'static str, String),
    /// What else is said of it.
    pub annotations: BTreeMap<String, String>,
    /// Its image.
    pub image: String,
    /// Whether it uses its node's network.
    pub host_network: bool,
    /// What it runs.
    pub command: Vec<String>,
    /// Whether it may only read.
    pub read_only: bool,
    /// Who it is, and which capabilities it has.
    pub privileges: Privileges,
    /// CPU and memory that are set aside for it.
    pub requests: (&'static str, &'static str),
    /// The node that it must run on, unless that is the scheduler's to choose.
    pub node: Option<String>,
    /// The annotation whose value its program can read at any time, in [`TOLD`].
    pub told: Option<&'static str>,
}

/// What a helper pod's program may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// It is nobody and has no capability: pod security's level `restricted` admits it.
    Nobody,
    /// It is root with these: the level `baseline` has to admit them.
    Root(&'static [&'static str]),
}

/// The name of a claim's pod, the same for the same claim; also a label's value.
pub fn name(prefix: &str, claim: &str) -> String {
    let name = format!("{prefix}-{claim}");
    if name.len() <= LONGEST && !name.contains('.') {
        return name;
    }
    format!("{prefix}-{}", hex::encode(&Sha256::digest(claim)[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_after_its_claim_within_what_a_name_may_be() {
        let of = |claim: &str| name("stillpoint-fill", claim);
        assert_eq!(of("data"), "stillpoint-fill-data");
        let long = of(&"x".repeat(200));
        assert!(long.len() <= LONGEST && long != of(&"x".repeat(201)), "{long}");
        assert!(!of("data.0").contains('.'));
    }
}
