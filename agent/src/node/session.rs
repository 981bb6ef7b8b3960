//! One cut's part on this node, from the first request to the last.
//!
//! A task of its own that goes through release and clean-up whatever becomes of whoever asked: its phases follow one
//! another in one function each, and what must be undone is a value that undoes it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use stillpoint_filetree::backup::{Progress, precopy::Earlier};
use stillpoint_hooks::guard::{self, Guard, Stop};
use stillpoint_repository::{
    Compression, Id, PART_TAG, Password, Repository, SnapshotMeta, Store, StoreOptions, Writer,
};
use tokio::{
    sync::{mpsc, watch},
    time,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    Node,
    lease::{Gone, Lease},
    locate::{self, Located},
    wire::{self, CutAnswer, cut_answer::Step as Answer, cut_request::Step},
};
use crate::volume::{self, Capture, Settings, Stored, Target, Volume, Wish};

/// How long a drain may take.
const DRAIN: Duration = Duration::from_secs(10);
/// The method that stops nobody.
const LIVE: &str = "live";
/// How long a freeze may take before pods that may hold it up are paused.
const GRACE: Duration = Duration::from_secs(2);
/// How long writing back may take before a stop.
const SYNC: Duration = Duration::from_secs(60);
/// Between two reports of progress.
const TELL: Duration = Duration::from_secs(1);
/// Problems of one volume that are sent by name.
const NAMED: usize = 20;

/// Why a session ended early.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error("{0} makes no sense now")]
    Protocol(&'static str),
    #[error("the repository cannot be used: {0}")]
    Repository(#[from] stillpoint_repository::Error),
}

/// Works through one session.
pub(super) async fn run(node: Arc<Node>, lease: Lease, answers: mpsc::Sender<Result<CutAnswer, Status>>) {
    let mut session =
        Session { node, lease, answers: Answers(answers), members: Vec::new(), cancel: CancellationToken::new() };
    let ended = session.drive().await;
    session.cancel.cancel();
    join_all(session.members.drain(..).map(|member| member.capture.abandon())).await;
    match ended {
        Ok(()) | Err(Ended::Gone(Gone)) => {}
        Err(error) => {
            tracing::warn!(%error, "a cut's session ended early");
            let _ = session.answers.0.send(Err(Status::failed_precondition(error.to_string()))).await;
        }
    }
}

struct Session {
    node: Arc<Node>,
    lease: Lease,
    answers: Answers,
    members: Vec<Member>,
    /// Ends the work on volumes when the session ends.
    cancel: CancellationToken,
}

/// A volume of the cut.
struct Member {
    id: String,
    capture: Box<dyn Capture>,
}

struct Answers(mpsc::Sender<Result<CutAnswer, Status>>);

impl Answers {
    async fn say(&self, step: Answer) -> Result<(), Gone> {
        self.0.send(Ok(CutAnswer { step: Some(step) })).await.map_err(|_| Gone)
    }
}

impl Session {
    async fn drive(&mut self) -> Result<(), Ended> {
        let Step::Begin(begin) = self.lease.next().await? else {
            return Err(Ended::Protocol("a request before Begin"));
        };
        let host = self.node.host();
        let asked = begin.volumes.clone();
        let found = tokio::task::spawn_blocking(move || {
            asked.into_iter().map(|volume| (locate::locate(&volume, &host), volume)).collect::<Vec<_>>()
        });
        let found = found.await.map_err(|_| Ended::Protocol("the lookup"))?;
        let devices: BTreeSet<_> =
            found.iter().filter_map(|(found, _)| Some(found.as_ref().ok()?.device.clone())).collect();
        let turns = self.node.turns.clone();
        let place = turns.join(&begin.backup, devices);
        let behind = place.behind();
        if !behind.is_empty() {
            self.answers.say(Answer::Waiting(wire::Waiting { behind })).await?;
        }
        tokio::select! {
            () = place.turn() => {}
            () = self.lease.gone() => return Err(Gone.into()),
        }
        self.answers.say(Answer::Turn(wire::Empty {})).await?;
        let Step::Prepare(_) = self.lease.next().await? else {
            return Err(Ended::Protocol("a request before Prepare"));
        };
        let (repository, writer) = open(&begin).await?;
        let worked = self.work(&begin, found, &repository, &writer).await;
        if worked.is_err() {
            writer.abandon().await;
        }
        worked
    }

    async fn work(
        &mut self,
        begin: &wire::Begin,
        found: Vec<(Result<Located, locate::Error>, wire::Volume)>,
        repository: &Repository,
        writer: &Writer,
    ) -> Result<(), Ended> {
        let settings = self.settings(begin);
        let mut prepared = Vec::new();
        for (found, asked) in found {
            prepared.push(match found {
                Ok(located) => self.prepare(located, &asked, &settings, (repository, writer)).await?,
                Err(error) => refused(&asked, String::new(), error.to_string()),
            });
        }
        self.answers.say(Answer::Prepared(wire::Prepared { volumes: prepared })).await?;
        loop {
            match self.lease.next().await? {
                Step::Keep(wire::Ids { volumes }) => {
                    let left = self.members.extract_if(.., |member| !volumes.contains(&member.id));
                    join_all(left.map(|member| member.capture.abandon())).await;
                }
                Step::Stop(wire::Stop { max_millis }) => self.stop(Duration::from_millis(max_millis)).await?,
                // of a stop that was refused
                Step::Release(_) => {
                    let released =
                        wire::Released { whole: false, why: "nothing was stopped".to_owned(), to: String::new() };
                    self.answers.say(Answer::Released(released)).await?;
                }
                Step::Store(_) => return self.store(begin, writer).await,
                Step::Begin(_) | Step::Prepare(_) | Step::Snapshot(_) | Step::Beat(_) => {
                    return Err(Ended::Protocol("that request"));
                }
            }
        }
    }

    fn settings(&self, begin: &wire::Begin) -> Settings {
        Settings {
            budget: Duration::from_millis(begin.budget_millis),
            spool: self.node.spool().to_owned(),
            exclude: Vec::new(),
            guard: self.node.config.guard.clone(),
            drain: self.stop_of(DRAIN),
            cancel: self.cancel.clone(),
        }
    }

    /// A stop of nothing yet, for so long at most.
    fn stop_of(&self, max: Duration) -> Stop {
        Stop { protect: vec![self.node.spool().to_owned()], max, grace: GRACE, sync: SYNC, ..Stop::default() }
    }

    /// Chooses a method and does what can be done before anything is stopped; what is refused is told.
    async fn prepare(
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
        let volume = Volume { name, directory, path, cgroups, read_only };
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
        Ok(match telling((&self.lease, &self.answers), phase, counts, preparing).await? {
            Ok(capture) => {
                self.members.push(Member { id: asked.id.clone(), capture });
                told
            }
            Err(error) => wire::PreparedVolume { refused: error.to_string(), ..told },
        })
    }

    /// Stops the writers, has the volumes copied, and releases: one window.
    async fn stop(&mut self, max: Duration) -> Result<(), Ended> {
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
                let failures = vec![wire::Failure { subject: "stop".to_owned(), reason: error.to_string() }];
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
                    let release = held.release().await;
                    self.answers.say(Answer::Lost(release.reason.to_string())).await?;
                    return self.lost(release.reason.to_string()).await;
                }
                step = self.lease.next_while_heard() => step?,
            };
            match step {
                Step::Snapshot(wire::Ids { volumes }) => {
                    let snapshots = snapshot(&mut self.members, &volumes);
                    let failures = tokio::select! {
                        biased;
                        () = held.lost() => continue,
                        () = self.lease.silent() => return Err(Gone.into()),
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

    /// Answers the release of a stop that was lost.
    async fn lost(&mut self, why: String) -> Result<(), Ended> {
        loop {
            match self.lease.next().await? {
                Step::Snapshot(_) => {
                    let failures = vec![wire::Failure { subject: "stop".to_owned(), reason: why.clone() }];
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

    /// Uploads what was copied and keeps it alive by a snapshot of its own.
    async fn store(&mut self, begin: &wire::Begin, writer: &Writer) -> Result<(), Ended> {
        let (mut volumes, mut nodes) = (Vec::new(), Vec::new());
        let members = std::mem::take(&mut self.members);
        for (number, member) in members.into_iter().enumerate() {
            let (_, counts) = watch::channel(Progress::default());
            let phase = format!("storing {}", member.id);
            match telling((&self.lease, &self.answers), phase, counts, member.capture.store()).await? {
                Ok(stored) => {
                    let Stored { root, .. } = &stored;
                    nodes.push(stillpoint_repository::Node { name: number.to_string().into(), ..root.clone() });
                    volumes.push(told(member.id, &stored));
                }
                Err(error) => {
                    volumes.push(wire::StoredVolume { id: member.id, failed: error.to_string(), ..Default::default() })
                }
            }
        }
        let tree = writer.tree(stillpoint_repository::Tree::new(nodes)?).await?;
        let meta = SnapshotMeta {
            tree,
            hostname: format!("{}/{}", begin.cluster, self.node.name()),
            paths: vec![format!("/{PART_TAG}/{}", begin.backup)],
            tags: vec![PART_TAG.to_owned()],
            time: Timestamp::now(),
            program_version: Some(concat!("stillpoint ", env!("CARGO_PKG_VERSION")).to_owned()),
        };
        let part = writer.clone().commit(meta).await?;
        Ok(self.answers.say(Answer::Stored(wire::Stored { volumes, part: part.to_string() })).await?)
    }
}

/// Opens the repository and takes its lock.
async fn open(begin: &wire::Begin) -> Result<(Repository, Writer), Ended> {
    let wire = begin.repository.clone().unwrap_or_default();
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let options = StoreOptions {
        endpoint: text(wire.endpoint),
        region: text(wire.region),
        limit_upload: wire.limit_upload.try_into().ok(),
        limit_download: wire.limit_download.try_into().ok(),
        ..StoreOptions::default()
    };
    let store = Store::connect_with(&wire.url, &options, wire.variables)?;
    let repository = Repository::open(store, &Password::new(wire.password)).await?;
    let compression = u8::try_from(begin.compression).ok().filter(|level| (1..=19).contains(level));
    let writer = repository.writer_with(compression.map_or(Compression::Off, Compression::Level)).await?;
    Ok((repository, writer))
}

/// Waits for `work`, telling its progress, unless the coordinator goes away.
async fn telling<T>(
    (lease, answers): (&Lease, &Answers),
    phase: String,
    counts: watch::Receiver<Progress>,
    work: impl Future<Output = T>,
) -> Result<T, Gone> {
    let mut work = std::pin::pin!(work);
    let mut interval = time::interval(TELL);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = lease.gone() => return Err(Gone),
            _ = interval.tick() => {
                let now = *counts.borrow();
                let files = now.files_new + now.files_changed + now.files_unmodified;
                let Progress { bytes, bytes_read, .. } = now;
                answers.say(Answer::Progress(wire::Progress { phase: phase.clone(), files, bytes, bytes_read })).await?;
            }
        }
    }
}

/// Copies volumes, all at once; those that could not be are named.
async fn snapshot(members: &mut [Member], volumes: &[String]) -> Vec<wire::Failure> {
    let members = members.iter_mut().filter(|member| volumes.contains(&member.id));
    let snapshots = members.map(async |member| {
        let failed = member.capture.snapshot().await.err()?;
        Some(wire::Failure { subject: member.id.clone(), reason: failed.to_string() })
    });
    join_all(snapshots).await.into_iter().flatten().collect()
}

fn why(release: &guard::Release) -> String {
    let targets = release.targets.iter().filter(|target| target.held != guard::Outcome::Whole);
    let each = targets.map(|target| format!("{}: {:?}", target.name, target.held));
    std::iter::once(release.reason.to_string()).chain(each).collect::<Vec<_>>().join("; ")
}

fn refused(asked: &wire::Volume, filesystem: String, why: String) -> wire::PreparedVolume {
    wire::PreparedVolume { id: asked.id.clone(), filesystem, refused: why, ..wire::PreparedVolume::default() }
}

fn earlier(parent: &wire::Parent) -> Option<Earlier> {
    let tree = Id(parent.tree.as_slice().try_into().ok()?);
    Some(Earlier { tree, stopped: parent.stopped.parse().ok()? })
}

fn told(id: String, stored: &Stored) -> wire::StoredVolume {
    let Stored { root, counts, problems, choice, level, strangers, .. } = stored;
    wire::StoredVolume {
        id,
        failed: String::new(),
        directory: serde_json::to_vec(root).unwrap_or_default(),
        level: level.to_string(),
        strangers: strangers.clone(),
        files: counts.files_new + counts.files_changed + counts.files_unmodified,
        bytes: counts.bytes,
        unread: problems.len() as u64,
        problems: problems.iter().take(NAMED).map(ToString::to_string).collect(),
        bytes_read: counts.bytes_read,
        method: choice.method.to_string(),
        reason: choice.reason.clone(),
    }
}
