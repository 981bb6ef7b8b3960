//! One window on this node: stop, copy, release.
//!
//! Apart from the rest of a session because nothing here may wait for anything but the guard, the disks and the
//! coordinator's next word.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use stillpoint_hooks::guard::{self, Guard};

use super::{
    super::{
        lease::{Gone, PATIENCE},
        wire::{self, cut_answer::Step as Answer, cut_request::Step},
    },
    Ended, Member, Session,
};
use crate::volume;

impl Session {
    /// Stops the writers, has the volumes copied, and releases: one window. What a snapshot that failed has left in a
    /// volume goes right after it: whoever writes may need the room.
    pub(super) async fn stop(&mut self, max: Duration) -> Result<(), Ended> {
        self.window(max).await?;
        let recovered = join_all(self.members.iter_mut().map(|member| member.capture.recover()));
        tokio::select! {
            _ = recovered => Ok(()),
            () = self.lease.gone() => Err(Gone.into()),
        }
    }

    async fn window(&mut self, max: Duration) -> Result<(), Ended> {
        let mut stop = self.stop_of(max);
        for member in &self.members {
            let needs = member.capture.stop();
            stop.freeze.extend(needs.freeze);
            stop.pause.extend(needs.pause);
            stop.drain.extend(needs.drain);
            stop.rescue.extend(needs.rescue);
        }
        let from = Timestamp::now();
        if stop.freeze.is_empty() && stop.pause.is_empty() {
            // nothing writes to what is left: the window is the coordinator's alone
            return self.unstopped(from).await;
        }
        let stopping = async { Guard::start(&self.node.config.guard).await?.stop(&stop).await };
        let held = tokio::select! {
            held = stopping => held,
            () = self.lease.gone() => return Err(Gone.into()),
        };
        match held {
            Ok(held) => self.hold(held, from).await,
            Err(error) => {
                let failures =
                    vec![wire::Failure { subject: "stop".to_owned(), reason: error.to_string(), gives_way: false }];
                Ok(self.answers.say(Answer::NotStopped(wire::Failures { failures })).await?)
            }
        }
    }

    async fn hold(&mut self, mut held: guard::Held, from: Timestamp) -> Result<(), Ended> {
        self.answers.say(Answer::Stopped(wire::Stopped { from: from.to_string() })).await?;
        loop {
            let step = tokio::select! {
                biased;
                () = held.lost() => {
                    let why = held.release().await.reason.to_string();
                    return self.lost(why).await;
                }
                step = self.lease.next_while_heard() => step?,
            };
            let Some(step) = step else { return self.let_go(held).await };
            match step {
                Step::Snapshot(wire::Ids { volumes }) => {
                    let snapshots = snapshot(&mut self.members, &volumes);
                    let failures = tokio::select! {
                        biased;
                        () = held.lost() => continue,
                        () = self.lease.silent() => return self.let_go(held).await,
                        failures = snapshots => failures,
                    };
                    self.answers.say(Answer::Snapshotted(wire::Failures { failures })).await?;
                }
                Step::Release(_) => {
                    let release = held.release().await;
                    let (whole, to) = (release.whole, Timestamp::now().to_string());
                    let why = if whole { String::new() } else { why(&release) };
                    return Ok(self.answers.say(Answer::Released(wire::Released { whole, why, to })).await?);
                }
                _ => return Err(Ended::Protocol("that request while writers stand still")),
            }
        }
    }

    /// Releases for a coordinator that is not heard. One that comes back takes the cut again with what is prepared.
    async fn let_go(&mut self, held: guard::Held) -> Result<(), Ended> {
        held.release().await;
        let why = format!("nothing was heard of the coordinator for {} ms", PATIENCE.as_millis());
        tracing::warn!(why, "writers were let go before their release was asked for");
        self.lost(why).await
    }

    /// Says that a stop was lost, and answers its release.
    async fn lost(&mut self, why: String) -> Result<(), Ended> {
        self.answers.say(Answer::Lost(why.clone())).await?;
        loop {
            match self.lease.next().await? {
                Step::Snapshot(_) => {
                    let failures =
                        vec![wire::Failure { subject: "stop".to_owned(), reason: why.clone(), gives_way: false }];
                    self.answers.say(Answer::Snapshotted(wire::Failures { failures })).await?;
                }
                Step::Release(_) => {
                    let released = wire::Released { whole: false, why, to: Timestamp::now().to_string() };
                    return Ok(self.answers.say(Answer::Released(released)).await?);
                }
                _ => return Err(Ended::Protocol("that request after the stop was lost")),
            }
        }
    }

    /// A window in which this node has nothing to stop.
    async fn unstopped(&mut self, from: Timestamp) -> Result<(), Ended> {
        self.answers.say(Answer::Stopped(wire::Stopped { from: from.to_string() })).await?;
        loop {
            match self.lease.next().await? {
                Step::Snapshot(wire::Ids { volumes }) => {
                    let failures = snapshot(&mut self.members, &volumes).await;
                    self.answers.say(Answer::Snapshotted(wire::Failures { failures })).await?;
                }
                Step::Release(_) => {
                    let released = wire::Released { whole: true, why: String::new(), to: Timestamp::now().to_string() };
                    return Ok(self.answers.say(Answer::Released(released)).await?);
                }
                _ => return Err(Ended::Protocol("that request in a window")),
            }
        }
    }
}

/// Copies volumes, all at once; those that could not be are named.
async fn snapshot(members: &mut [Member], volumes: &[String]) -> Vec<wire::Failure> {
    let members = members.iter_mut().filter(|member| volumes.contains(&member.id));
    let snapshots = members.map(async |member| {
        let failed = member.capture.snapshot().await.err()?;
        let gives_way = matches!(failed, volume::Error::GivesWay { .. });
        Some(wire::Failure { subject: member.id.clone(), reason: failed.to_string(), gives_way })
    });
    join_all(snapshots).await.into_iter().flatten().collect()
}

fn why(release: &guard::Release) -> String {
    let targets = release.targets.iter().filter(|target| target.held != guard::Outcome::Whole);
    let each = targets.map(|target| format!("{}: {:?}", target.name, target.held));
    std::iter::once(release.reason.to_string()).chain(each).collect::<Vec<_>>().join("; ")
}
