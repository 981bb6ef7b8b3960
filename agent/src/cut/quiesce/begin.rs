//! Has every node prepare its volumes, before anything is stopped.
//!
//! Once for all attempts of a cut. A node or a volume that does not come along is refused by name; the others go on.

use std::collections::BTreeMap;

use futures::future::join_all;
use stillpoint_api::Manifest;

use super::{
    super::{
        agents::{Agents, Found},
        claims::{Claim, NOT_MOUNTED, Place},
        helpers::UnmountedClaims,
        link::{Link, LinkError},
        nodes::Member,
    },
    ANSWER, LONG, Prepared, Quiesce,
};
use crate::{
    node::wire::{self, cut_answer::Step as Answer, cut_request::Step},
    volume::spares_reading,
};

impl Quiesce {
    /// Gives every claim that no running pod mounts a helper pod, or says why not.
    pub(super) async fn mount(&mut self, backup: &str) {
        if let UnmountedClaims::Copied(_) = &self.request.unmounted {
            self.helpers.settle(&self.client, &self.seen.pods);
        }
        if !self.claims.iter().any(|claim| claim.unmounted) {
            return;
        }
        let pods = match &self.request.unmounted {
            UnmountedClaims::Copied(pods) => pods.clone(),
            UnmountedClaims::LeftOut(advice) => {
                let advice = advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
                return self.leave_unmounted(&format!("{NOT_MOUNTED}{advice}"));
            }
        };
        // pods that nobody could look into would be made in vain; asked again later, for what opens the way is short-lived
        if let Err(why) = self.find().await {
            return self.leave_unmounted(&why);
        }
        let only = match &self.request.agents {
            Agents::Local(node) => Some(node.name()),
            Agents::Cluster { .. } => None,
        };
        let asked = self.request.method.as_deref();
        let made_by = (&self.client, &pods, backup);
        self.helpers.provide(&mut self.claims, (&self.seen, asked), made_by, only, &self.progress).await;
    }

    fn leave_unmounted(&mut self, why: &str) {
        for claim in self.claims.iter_mut().filter(|claim| claim.unmounted) {
            claim.place = Place::Refused(why.to_owned());
        }
    }

    pub(super) async fn begin(&mut self, backup: &str, cluster: &str, previous: Option<&Manifest>) {
        let mut by_node: BTreeMap<String, Vec<(wire::Volume, Vec<String>)>> = BTreeMap::new();
        for claim in &self.claims {
            match &claim.place {
                Place::Node(node, volume) => {
                    let parent = previous.and_then(|manifest| parent(manifest, claim));
                    let volume = wire::Volume { parent, ..(**volume).clone() };
                    by_node.entry(node.clone()).or_default().push((volume, claim.pods.clone()));
                }
                Place::Unmounted(_) => {
                    self.refused.insert(claim.id(), NOT_MOUNTED.to_owned());
                }
                Place::Refused(why) => {
                    self.refused.insert(claim.id(), why.clone());
                }
            }
        }
        let found = if by_node.is_empty() { None } else { Some(self.find().await) };
        let agents = match found {
            None => return,
            Some(Ok(agents)) => agents,
            Some(Err(why)) => {
                self.refused.extend(by_node.into_values().flatten().map(|(volume, _)| (volume.id, why.clone())));
                return;
            }
        };
        let mut begun = Vec::new();
        // in the order of names, so that two backups never wait for each other's nodes
        for (node, volumes) in by_node {
            match self.begin_on(&agents, &node, &volumes, backup, cluster).await {
                Ok(link) => begun.push((link, volumes)),
                Err(why) => {
                    self.refused.extend(volumes.into_iter().map(|(volume, _)| (volume.id, why.clone())));
                }
            }
        }
        let prepared = join_all(begun.iter().map(|(link, _)| self.prepare_on(link))).await;
        for ((link, volumes), prepared) in begun.into_iter().zip(prepared) {
            match prepared {
                Ok(prepared) => self.take(link, volumes, prepared),
                Err(error) => {
                    self.refused.extend(volumes.into_iter().map(|(volume, _)| (volume.id, error.to_string())));
                }
            }
        }
    }

    /// Looks for who copies volumes, and whether they can reach the repository.
    async fn find(&self) -> Result<Found, String> {
        let found = self.request.agents.find().await.map_err(|error| error.to_string())?;
        match (&found, self.request.access.bound_to_this_host) {
            (Found::Cluster(_), Some(why)) => Err(format!(
                "agents upload volumes by themselves, and {why}: give a repository that every node reaches, --node-local, \
                 or --no-volumes"
            )),
            _ => Ok(found),
        }
    }

    /// Begins on a node and waits until its filesystems are ours.
    async fn begin_on(
        &self,
        agents: &Found,
        node: &str,
        volumes: &[(wire::Volume, Vec<String>)],
        backup: &str,
        cluster: &str,
    ) -> Result<Link, String> {
        let link = agents.link(node).await.map_err(|error| error.to_string())?;
        let begin = wire::Begin {
            backup: backup.to_owned(),
            cluster: cluster.to_owned(),
            repository: Some(self.request.access.to_wire()),
            volumes: volumes.iter().map(|(volume, _)| volume.clone()).collect(),
            budget_millis: u64::try_from(self.request.budget.as_millis()).unwrap_or(u64::MAX),
            compression: self.request.compression.into(),
        };
        let mut answer = link.ask(Step::Begin(begin), ANSWER).await;
        while let Ok(Answer::Waiting(wire::Waiting { behind })) = &answer {
            let behind = behind.join(", ");
            tracing::info!(node, behind, "waiting for other backups");
            self.note(node, Some(format!("waiting for {behind}")));
            answer = link.wait(LONG).await;
        }
        self.note(node, None);
        match answer {
            Ok(Answer::Turn(_)) => Ok(link),
            Ok(other) => Err(link.unexpected(&other).to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn prepare_on(&self, link: &Link) -> Result<wire::Prepared, LinkError> {
        match self.noting(link, link.ask(Step::Prepare(wire::Empty {}), LONG)).await? {
            Answer::Prepared(prepared) => Ok(prepared),
            other => Err(link.unexpected(&other)),
        }
    }

    /// Waits for a node's work and passes on how far it is.
    pub(super) async fn noting<T>(&self, link: &Link, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut news = link.news();
        // what it was at before
        news.mark_unchanged();
        loop {
            tokio::select! {
                done = &mut work => {
                    self.note(&link.node, None);
                    return done;
                }
                Ok(()) = news.changed() => {
                    let wire::Progress { phase, files, bytes_read, .. } = news.borrow_and_update().progress.clone();
                    self.note(&link.node, Some(format!("{phase}: {files} files, {} MiB read", bytes_read >> 20)));
                }
            }
        }
    }

    /// Says what a node is at.
    fn note(&self, node: &str, note: Option<String>) {
        self.progress.send_modify(|progress| match note {
            Some(note) => drop(progress.nodes.insert(node.to_owned(), note)),
            None => drop(progress.nodes.remove(node)),
        });
    }

    fn take(&mut self, link: Link, volumes: Vec<(wire::Volume, Vec<String>)>, prepared: wire::Prepared) {
        let mut pods: BTreeMap<_, _> = volumes.into_iter().map(|(volume, pods)| (volume.id, pods)).collect();
        let mut member = Member { link: link.clone(), volumes: BTreeMap::new() };
        for volume in prepared.volumes {
            let Some(pods) = pods.remove(&volume.id) else { continue };
            if volume.refused.is_empty() {
                member.volumes.insert(volume.id.clone(), pods);
                self.prepared.insert(volume.id.clone(), Prepared { node: link.node.clone(), volume });
            } else {
                self.refused.insert(volume.id, volume.refused);
            }
        }
        self.refused.extend(pods.into_keys().map(|id| (id, link.error("it did not prepare it").to_string())));
        if !member.volumes.is_empty() {
            self.members.push(member);
        }
    }
}

/// A claim's copy in the backup before, if it may spare reading.
fn parent(manifest: &Manifest, claim: &Claim) -> Option<wire::Parent> {
    let record =
        manifest.volumes.iter().find(|record| (&record.namespace, &record.claim) == (&claim.namespace, &claim.name))?;
    let held = record.data.held().filter(|held| spares_reading(held.method, held.level))?;
    let stopped = held.stopped?.from.to_string();
    Some(wire::Parent { tree: held.tree.0.to_vec(), stopped })
}
