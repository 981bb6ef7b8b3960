//! Fills claims with the data that a backup holds of them.
//!
//! # Flow
//! For each claim a pod of ours mounts it, which also makes it bind. In that pod our own program opens the repository,
//! with credentials that reach it over the standard input of an `exec`, restores the volume and reads every file back.
//! Then the pod is removed and the claim says that it is filled.
//!
//! # Guarantees
//! - Credentials are in no object of the cluster, neither in a pod's spec nor in its environment.
//! - Nothing that is in a volume is overwritten: one that is not empty is refused.
//! - An interrupted filling goes on where it stopped: a claim bears a mark until it is filled, and so does its volume.
//! - The pod is removed whatever comes of it; should this program be killed, the pod ends by itself and the next restore
//!   removes it. The connection is a lease: a filling whose caller is gone ends.
//! - A claim that a pod of others mounts is not filled: it would see, and perhaps change, half of the data.

mod claim;
mod conversation;
mod helper;
mod pod;
mod protocol;

use std::time::Duration;

use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use stillpoint_api::ObjectRef;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use self::claim::{Unfilled, comparable};
pub use self::protocol::{Done, Order, Said};
use self::{claim::Verdict, helper::Helper};
use crate::{
    Error,
    apply::{Applied, Progress},
    plan::Plan,
};

/// Claims that are filled at once.
const CONCURRENCY: usize = 4;

/// How claims are filled.
pub struct Filling {
    /// A client that does not give up on a connection that is silent for long.
    pub client: kube::Client,
    /// The image of the pods, with `stillpoint` on its PATH.
    pub image: String,
    /// Whether the pods use their node's network.
    pub host_network: bool,
    /// What the program in the pod opens the repository with: it knows how to read it, nobody between does.
    pub access: Value,
    /// Whether claims that existed are filled too, if their volumes are empty.
    pub into_existing: bool,
    /// How long a pod may take to run.
    pub patience: Duration,
    /// Ends it.
    pub cancel: CancellationToken,
}

/// A claim that got its data.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filled {
    /// The claim.
    pub claim: ObjectRef,
    /// What was written.
    #[serde(flatten)]
    pub done: Done,
    /// How long it took.
    pub seconds: f64,
}

/// A claim that did not get its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotFilled {
    /// The claim.
    pub claim: ObjectRef,
    /// Why.
    pub reason: String,
}

impl Filling {
    /// Fills claims, several at a time. One that cannot be filled ends the restore, once the others are done.
    pub(crate) async fn fill(
        &self,
        claims: &[Unfilled],
        plan: &Plan,
        applied: &mut Applied,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Error> {
        let mut wanted = Vec::new();
        for claim in claims {
            match claim.judge(plan.root, self.into_existing) {
                Verdict::Fill => wanted.push(claim),
                // a restore that was killed may have left its pod
                Verdict::Filled => Helper::new(self, plan, claim).end().await?,
                Verdict::Leave(reason) => {
                    applied.not_filled.push(NotFilled { claim: claim.claim.clone(), reason: reason.to_owned() });
                }
            }
        }
        let total_bytes = wanted.iter().map(|claim| claim.bytes).sum();
        progress.send_modify(|progress| progress.total_bytes = total_bytes);
        let helpers = stream::iter(wanted).map(|claim| Helper::new(self, plan, claim).fill(progress));
        // to the end of each, whatever becomes of another: a future that is dropped leaves its pod behind
        let ended: Vec<_> = helpers.buffer_unordered(CONCURRENCY).collect().await;
        for filled in ended {
            applied.filled.push(filled?);
        }
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
