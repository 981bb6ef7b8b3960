//! The cut: one instant for the API and all volumes of a backup, on all their nodes.
//!
//! ```text
//! see ─ plan ─ prepare (every node) ─ pre hooks ─ stop (every node) ─┬─ read R ──┬─ release ─ post hooks ─ store
//!                                                                    └─ snapshot ┘
//! ```
//! That R is read after the last node has said *stopped* and before the first is asked to release is what makes it one
//! instant: whatever the API holds at R was caused by writes that the volumes have. No clock is asked.

mod agents;
mod claims;
mod helpers;
mod link;
mod nodes;
mod policy;
mod queue;
mod quiesce;
mod record;
mod seen;

use std::{fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use stillpoint_hooks::hook::journal::Journal;

pub use self::{
    agents::{AgentError, Agents, Way},
    helpers::{HelperPods, UnmountedClaims},
    policy::{Policies, PolicyError},
    queue::{Queue, Queued},
};
pub(crate) use self::{
    helpers::Helpers,
    quiesce::{Instant, Quiesce, Stored, Subject, Void},
    record::{Recorded, method},
};
use crate::Access;

/// How hooks are to run.
#[derive(Clone)]
pub struct HooksRequest {
    /// A client whose answers may be silent for long.
    pub client: kube::Client,
    /// Where the posts are written down that are owed, should this process be killed.
    pub journal: Journal,
}

/// How volumes are to be copied.
#[derive(Clone)]
pub struct VolumesRequest {
    /// Who copies them.
    pub agents: Agents,
    /// How these reach the repository.
    pub access: Access,
    /// The method for every volume, instead of the one that fits it best.
    pub method: Option<String>,
    /// What is done with which volumes, where the request names no method.
    pub policies: Policies,
    /// How long writers may stand still for what is read meanwhile.
    pub budget: Duration,
    /// How long they stand still at most, whatever happens.
    pub max: Duration,
    /// How long an agent that went away while nothing was held may take to come back.
    pub return_within: Duration,
    /// zstd's level, 0 for none.
    pub compression: u8,
    /// Is told of the steps of each window, which wait for it; for proofs and measurements.
    pub on_step: Option<OnStep>,
    /// How hooks run; none where none do.
    pub hooks: Option<HooksRequest>,
    /// What becomes of claims that no running pod mounts.
    pub unmounted: UnmountedClaims,
}

/// What a window is about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Copy this volume, as `namespace/claim`.
    Snapshot(String),
    /// Read R.
    Revision,
}

/// What is told of the steps of a window.
pub type OnStep = Arc<dyn Fn(Step) -> BoxFuture<'static, ()> + Send + Sync>;

impl fmt::Debug for VolumesRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumesRequest").field("access", &self.access).finish_non_exhaustive()
    }
}

impl VolumesRequest {
    /// Volumes that pods mount, copied by `agents` as fits each of them, frozen for 10 s at most.
    pub fn new(agents: Agents, access: Access, hooks: Option<HooksRequest>) -> Self {
        let (budget, max) = (Duration::from_secs(2), Duration::from_secs(10));
        // a container that is started again, a pod that takes the place of another, or a session that nobody has ended yet
        let return_within = Duration::from_secs(45);
        let unmounted = UnmountedClaims::LeftOut(None);
        Self {
            agents,
            access,
            method: None,
            policies: Policies::default(),
            budget,
            max,
            return_within,
            compression: 1,
            on_step: None,
            hooks,
            unmounted,
        }
    }
}
