//! Has every node prepare its volumes, before anything is stopped.
//!
//! Once for all attempts of a cut. A node or a volume that does not come along is refused by name; the others go on.
//!
//! Nothing is held yet, so an agent that goes away meanwhile is waited for, and asked again: it reads its volumes once
//! more, and uploads nothing that the agent before it had uploaded and indexed.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use stillpoint_api::Manifest;
use tokio::time;

use super::{
    super::{
        agents::{Agents, Found},
        claims::{Claim, NOT_MOUNTED, Place},
        helpers::UnmountedClaims,
        link::Link,
        nodes::Member,
    },
    ANSWER, Asked, LONG, Prepared, Quiesce,
};
use crate::{
    node::wire::{self, cut_answer::Step as Answer, cut_request::Step},
    volume::spares_reading,
};

/// Sessions in which one node may begin to prepare: an agent that a volume kills is not to kill every backup.
const SESSIONS: u32 = 3;
/// Before an agent that is away is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Quiesce {
    /// Gives every claim that no running pod mounts a helper pod, or says why not.
    pub(super) async fn mount(&mut self) {
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
        let (backup, _) = &self.names;
        let made_by = (&self.client, &pods, backup.as_str());
        self.helpers.provide(&mut self.claims, &self.seen, made_by, only, &self.progress).await;
    }

    fn leave_unmounted(&mut self, why: &str) {
        for claim in self.claims.iter_mut().filter(|claim| claim.unmounted) {
            claim.place = Place::Refused(why.to_owned());
        }
    }

    pub(super) async fn begin(&mut self, previous: Option<&Manifest>) {
        let mut by_node: BTreeMap<String, Asked> = BTreeMap::new();
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
                Place::LeftOut => {}
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
        self.asked = by_node.clone();
        let mut begun = Vec::new();
        // in the order of names, so that two backups never wait for each other's nodes
        for (node, volumes) in by_node {
            match self.begin_on(&agents, &node, &volumes).await {
                Ok(link) => begun.push((link, volumes)),
                Err(why) => self.refuse(volumes, &why),
            }
        }
        let prepared = join_all(begun.into_iter().map(async |(link, volumes)| {
            let prepared = self.prepare_on(link, &volumes).await;
            (volumes, prepared)
        }));
        for (volumes, prepared) in prepared.await {
            self.take_or_refuse(volumes, prepared);
        }
    }

    /// Before a cut: has the agents prepare again that went away meanwhile and are back, once each, and goes on without
    /// the others.
    pub(super) async fn revive(&mut self) {
        let mut again = Vec::new();
        for member in self.members.extract_if(.., |member| member.link.has_ended().is_some()).collect::<Vec<_>>() {
            let node = &member.link.node;
            let asked = self.asked.get(node).into_iter().flatten();
            let volumes: Asked = asked.filter(|(volume, _)| member.volumes.contains_key(&volume.id)).cloned().collect();
            let why = member.link.has_ended().map(|why| why.to_string()).unwrap_or_default();
            if member.link.is_cut_off() && self.revived.insert(node.clone()) {
                again.push((node.clone(), volumes, why));
            } else {
                self.refuse(volumes, &why);
            }
        }
        let prepared = join_all(again.into_iter().map(async |(node, volumes, why)| {
            let prepared = match Box::pin(self.begin_again(&node, &volumes, &why)).await {
                Ok(link) => self.prepare_on(link, &volumes).await,
                Err(why) => Err(why),
            };
            (volumes, prepared)
        }));
        for (volumes, prepared) in prepared.await {
            self.take_or_refuse(volumes, prepared);
        }
    }

    fn refuse(&mut self, volumes: Asked, why: &str) {
        self.refused.extend(volumes.into_iter().map(|(volume, _)| (volume.id, why.to_owned())));
    }

    fn take_or_refuse(&mut self, volumes: Asked, prepared: Result<(Link, wire::Prepared), String>) {
        match prepared {
            Ok((link, prepared)) => self.take(link, volumes, prepared),
            Err(why) => self.refuse(volumes, &why),
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
    async fn begin_on(&self, agents: &Found, node: &str, volumes: &Asked) -> Result<Link, String> {
        let (backup, cluster) = &self.names;
        let link = agents.link(node).await.map_err(|error| error.to_string())?;
        let begin = wire::Begin {
            backup: backup.clone(),
            cluster: cluster.clone(),
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

    /// Begins again with a node whose agent went away, once it is back.
    async fn begin_again(&self, node: &str, volumes: &Asked, lost: &str) -> Result<Link, String> {
        tracing::warn!(node, lost, "the agent went away while nothing was held; it is waited for");
        let within = self.request.return_within;
        let mut last = String::new();
        let back = async {
            loop {
                self.note(node, Some("waiting for its agent to come back".to_owned()));
                let begun = match self.find().await {
                    Ok(agents) => self.begin_on(&agents, node, volumes).await,
                    Err(why) => Err(why),
                };
                match begun {
                    Ok(link) => return link,
                    Err(why) => last = why,
                }
                time::sleep(LOOK_AGAIN).await;
            }
        };
        // bounded, turns and all: what this backup holds on other nodes others may wait for
        let back = time::timeout(within, back).await;
        self.note(node, None);
        back.map_err(|_| format!("{lost}; it was not back within {} s: {last}", within.as_secs()))
    }

    /// Has a node prepare, in a session of its own again where its agent goes away meanwhile.
    async fn prepare_on(&self, mut link: Link, volumes: &Asked) -> Result<(Link, wire::Prepared), String> {
        let mut session = 1;
        loop {
            let error = match self.noting(&link, link.ask(Step::Prepare(wire::Empty {}), LONG)).await {
                Ok(Answer::Prepared(prepared)) => return Ok((link, prepared)),
                Ok(other) => link.unexpected(&other),
                Err(error) => error,
            };
            if session == SESSIONS || !link.is_cut_off() {
                return Err(error.to_string());
            }
            session += 1;
            link = Box::pin(self.begin_again(&error.node, volumes, &error.to_string())).await?;
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

    fn take(&mut self, link: Link, volumes: Asked, prepared: wire::Prepared) {
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
