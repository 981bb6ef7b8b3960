//! One cut's part on this node, from the first request to the last.
//!
//! A task of its own that goes through release and clean-up whatever becomes of whoever asked: its phases follow one
//! another in one function each, and what must be undone is a value that undoes it.

mod prepare;
mod window;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use stillpoint_filetree::backup::Progress;
use stillpoint_hooks::JournalError;
use stillpoint_repository::{Compression, PART_TAG, Repository, SnapshotMeta, Writer};
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
use crate::{
    Access,
    volume::{Capture, Stored},
};

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
    #[error("no turn can be taken among the processes of this node: {0}")]
    Turn(#[from] JournalError),
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
    /// How far it is.
    counts: watch::Receiver<Progress>,
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
        let volumes = begin.volumes.iter().map(|volume| volume.id.clone()).collect();
        // ours until the end of this function
        let place = self.node.turns.join(&begin.backup, volumes, devices);
        let mut told = None;
        loop {
            let behind = tokio::select! {
                behind = place.behind(told.as_deref()) => behind,
                () = self.lease.gone() => return Err(Gone.into()),
            };
            if behind.is_empty() {
                break;
            }
            told = Some(behind.clone());
            self.answers.say(Answer::Waiting(wire::Waiting { behind })).await?;
        }
        let mut told = Vec::new();
        let _turn = loop {
            let outside = tokio::select! {
                outside = place.outside(&self.node.config.guard.journal, &told) => outside?,
                () = self.lease.gone() => return Err(Gone.into()),
            };
            match outside {
                Ok(turn) => break turn,
                Err(behind) => told = behind,
            }
            self.answers.say(Answer::Waiting(wire::Waiting { behind: told.clone() })).await?;
        };
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
                Err(error) => prepare::refused(&asked, String::new(), error.to_string()),
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

    /// Uploads what was copied and keeps it alive by a snapshot of its own.
    async fn store(&mut self, begin: &wire::Begin, writer: &Writer) -> Result<(), Ended> {
        let (mut volumes, mut nodes) = (Vec::new(), Vec::new());
        let members = std::mem::take(&mut self.members);
        for (number, member) in members.into_iter().enumerate() {
            let phase = format!("storing {}", member.id);
            match telling((&self.lease, &self.answers), phase, member.counts, member.capture.store()).await? {
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
            summary: None,
        };
        let part = writer.clone().commit(meta).await?;
        Ok(self.answers.say(Answer::Stored(wire::Stored { volumes, part: part.to_string() })).await?)
    }
}

/// Opens the repository and takes its lock.
async fn open(begin: &wire::Begin) -> Result<(Repository, Writer), Ended> {
    let repository = Access::from_wire(begin.repository.clone().unwrap_or_default()).open().await?;
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
