//! Makes a volume of this node ready for its cut: the long part, before anything is stopped.
//!
//! What is refused is an answer like any other: one volume that cannot be copied costs no other.

use std::time::Duration;

use stillpoint_filetree::backup::{Progress, precopy::Earlier};
use stillpoint_hooks::guard::Stop;
use stillpoint_repository::{Id, Repository, Writer};
use tokio::sync::watch;

use super::{
    super::{locate::Located, wire},
    Ended, Member, Session, telling,
};
use crate::volume::{self, Looks, Settings, Target, Volume, Wish};

/// How long a drain may take.
const DRAIN: Duration = Duration::from_secs(10);
/// The method that stops nobody.
const LIVE: &str = "live";
/// How long a freeze may take before pods that may hold it up are paused.
const GRACE: Duration = Duration::from_secs(2);
/// How long writing back may take before a stop.
const SYNC: Duration = Duration::from_secs(60);

impl Session {
    pub(super) fn settings(&self, begin: &wire::Begin) -> Settings {
        Settings {
            budget: Duration::from_millis(begin.budget_millis),
            spool: self.node.spool().to_owned(),
            exclude: Vec::new(),
            guard: self.node.config.guard.clone(),
            drain: self.stop_of(DRAIN),
            looks: Looks::default(),
            cancel: self.cancel.clone(),
        }
    }

    /// A stop of nothing yet, for so long at most.
    pub(super) fn stop_of(&self, max: Duration) -> Stop {
        Stop { protect: vec![self.node.spool().to_owned()], max, grace: GRACE, sync: SYNC, ..Stop::default() }
    }

    /// Chooses a method and does what can be done before anything is stopped; what is refused is told.
    pub(super) async fn prepare(
        &mut self,
        located: Located,
        asked: &wire::Volume,
        settings: &Settings,
        (repository, writer): (&Repository, &Writer),
    ) -> Result<wire::PreparedVolume, Ended> {
        let Located { directory, path, kind, cgroups, .. } = located;
        let (name, read_only) = (asked.id.clone(), asked.read_only);
        if let Some(why) = self.node.config.cannot_stop.as_ref().filter(|_| !read_only && asked.method != LIVE) {
            return Ok(refused(asked, kind, format!("its writers cannot be stopped: {why}")));
        }
        let method = match asked.method.as_str() {
            "" => None,
            word => match crate::cut::method(word) {
                None => return Ok(refused(asked, kind, format!("there is no method {word:?}"))),
                known => known,
            },
        };
        let volume = Volume { name, directory: directory.into(), path, cgroups, read_only };
        let wish = Wish { method, freeze: asked.freeze, ..Wish::default() };
        let plan = match volume::plan(&volume, wish, settings).await {
            Ok(plan) => plan,
            Err(error) => return Ok(refused(asked, kind, error.to_string())),
        };
        let told = wire::PreparedVolume {
            id: asked.id.clone(),
            filesystem: kind,
            method: plan.choice.method.to_string(),
            reason: plan.choice.reason.clone(),
            refused: String::new(),
        };
        let target = Target { repository, writer, earlier: asked.parent.as_ref().and_then(earlier) };
        let (progress, counts) = watch::channel(Progress::default());
        let preparing = volume::prepare(volume, plan, target, settings, progress);
        let phase = format!("preparing {}", asked.id);
        Ok(match telling((&self.lease, &self.answers), phase, counts.clone(), preparing).await? {
            Ok(capture) => {
                self.members.push(Member { id: asked.id.clone(), capture, counts });
                told
            }
            Err(error) => wire::PreparedVolume { refused: error.to_string(), ..told },
        })
    }
}

pub(super) fn refused(asked: &wire::Volume, filesystem: String, why: String) -> wire::PreparedVolume {
    wire::PreparedVolume { id: asked.id.clone(), filesystem, refused: why, ..wire::PreparedVolume::default() }
}

fn earlier(parent: &wire::Parent) -> Option<Earlier> {
    let tree = Id(parent.tree.as_slice().try_into().ok()?);
    Some(Earlier { tree, stopped: parent.stopped.parse().ok()? })
}
