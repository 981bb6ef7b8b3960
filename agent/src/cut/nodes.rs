//! The stop of one session on all nodes of a cut.
//!
//! What a session needs of a stop, by streams: everything that is asked of one node is asked of all at once, and what
//! one refuses, none keeps.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::{self, join_all};
use jiff::Timestamp;
use stillpoint_hooks::{
    guard::{Reason, Release},
    session::{Held, Pod, Stopper},
};
use tokio::sync::watch;

use super::link::{Link, LinkError};
use crate::node::wire::{self, cut_answer::Step as Answer, cut_request::Step};

/// How long a node may take to say that it has stopped, beyond the guard's own grace.
const STOPPED: Duration = Duration::from_secs(15);
/// How long a node may take to answer a release.
const RELEASED: Duration = Duration::from_secs(15);

/// One node's volumes in the cut.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) link: Link,
    /// The volumes that are still in the cut, each with the pods that mount it.
    pub(crate) volumes: BTreeMap<String, Vec<Pod>>,
}

/// The writers of all nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    pub(crate) members: Vec<Member>,
    /// How long they stand still at most.
    pub(crate) max: Duration,
    /// Is told what stands still, for whoever works meanwhile.
    pub(crate) standing: watch::Sender<Option<Standing>>,
}

/// Nodes whose writers stand still.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// Each with its volumes.
    pub(crate) links: Arc<[(Link, Vec<String>)]>,
    /// When the first of them was asked to.
    pub(crate) since: Timestamp,
}

/// Writers that stand still on all nodes, until this is released or dropped.
#[derive(Debug)]
pub(crate) struct HeldNodes(Standing);

/// Not all of them could be stopped.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub(crate) struct NotStopped(pub(crate) Vec<LinkError>);

impl Nodes {
    fn stopped_ones(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.volumes.is_empty())
    }
}

impl Stopper for Nodes {
    type Held = HeldNodes;
    type Error = NotStopped;

    /// The nodes have prepared before: a cut that is retaken begins with what they have read already.
    async fn prepare(&mut self) -> Result<(), NotStopped> {
        Ok(())
    }

    fn leave_out(&mut self, pod: &Pod) -> bool {
        for member in &mut self.members {
            member.volumes.retain(|_, pods| !pods.contains(pod));
        }
        self.stopped_ones().next().is_some()
    }

    /// Tells the nodes what hooks have left out; each guard writes back by itself, right before its stop.
    async fn sync(&mut self) -> Result<(), NotStopped> {
        let told = self.members.iter().map(|member| {
            let volumes = member.volumes.keys().cloned().collect();
            member.link.tell(Step::Keep(wire::Ids { volumes }))
        });
        all(join_all(told).await).map(drop)
    }

    async fn stop(&mut self) -> Result<HeldNodes, NotStopped> {
        let since = Timestamp::now();
        let with_volumes = |member: &Member| (member.link.clone(), member.volumes.keys().cloned().collect());
        let links: Arc<[(Link, Vec<String>)]> = self.stopped_ones().map(with_volumes).collect();
        // from here on whatever has stopped is released, by this value or by the end of the streams
        let held = HeldNodes(Standing { links: links.clone(), since });
        let max_millis = u64::try_from(self.max.as_millis()).unwrap_or(u64::MAX);
        let stops = links.iter().map(async |(link, _)| {
            match link.ask(Step::Stop(wire::Stop { max_millis }), STOPPED).await? {
                Answer::Stopped(_) => Ok(()),
                Answer::NotStopped(wire::Failures { failures }) => {
                    let each = failures.iter().map(|failure| format!("{}: {}", failure.subject, failure.reason));
                    Err(link.error(each.collect::<Vec<_>>().join("; ")))
                }
                other => Err(link.unexpected(&other)),
            }
        });
        match all(join_all(stops).await) {
            Ok(_) => {
                self.standing.send_replace(Some(held.0.clone()));
                Ok(held)
            }
            Err(error) => {
                held.release().await;
                Err(error)
            }
        }
    }
}

impl Held for HeldNodes {
    async fn lost(&mut self) {
        let lost = self.0.links.iter().map(|(link, _)| Box::pin(link.lost()));
        if self.0.links.is_empty() {
            return future::pending().await;
        }
        future::select_all(lost).await;
    }

    async fn release(mut self) -> Release {
        let links = std::mem::take(&mut self.0.links);
        let released =
            links.iter().map(async |(link, _)| match link.ask(Step::Release(wire::Empty {}), RELEASED).await {
                Ok(Answer::Released(released)) => (released.whole, Some(released.why).filter(|why| !why.is_empty())),
                Ok(other) => (false, Some(link.unexpected(&other).to_string())),
                Err(error) => (false, Some(error.to_string())),
            });
        let released = join_all(released).await;
        for why in released.iter().filter_map(|(_, why)| why.as_ref()) {
            tracing::warn!(why, "the stop was not whole");
        }
        let whole = released.iter().all(|(whole, _)| *whole);
        let window_ms = Timestamp::now().duration_since(self.0.since).as_secs_f64() * 1e3;
        let reason = if whole { Reason::Asked } else { Reason::ReleasedByAnother };
        Release { whole, reason, window_ms, targets: Vec::new() }
    }
}

impl Drop for HeldNodes {
    /// A stop that nobody waits for any more is not left to its deadline.
    fn drop(&mut self) {
        for (link, _) in self.0.links.iter() {
            let link = link.clone();
            tokio::spawn(async move { link.ask(Step::Release(wire::Empty {}), RELEASED).await });
        }
    }
}

fn all<T>(results: Vec<Result<T, LinkError>>) -> Result<Vec<T>, NotStopped> {
    let (good, bad): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let failures: Vec<_> = bad.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(good.into_iter().flatten().collect()) } else { Err(NotStopped(failures)) }
}
