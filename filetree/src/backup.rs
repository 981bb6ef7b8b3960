//! Reads directory trees into a repository.
//!
//! One thread walks and compares with the parent, as many as there are processors read, cut, hash, compress and seal.
//! A directory is stored by whoever finishes the last of what is in it, so no thread ever waits for another and what is
//! in memory is the open directories, a bounded queue and a few pieces of files.
//!
//! ```text
//! walk ─┬─ as the parent has it ──────────────────────────────┐
//!       └─ files ─ read ─ cut ─ pieces ─ hash, compress, seal ─┴─ directory ─ its parent ─ … ─ root ─ snapshot
//! ```
//!
//! # Guarantees
//! What could not be read, vanished or changed under the reader is a problem with a name; everything else is stored.
//! What the parent is trusted for has the inode, size and times that it has there, and was last changed well before the
//! parent began.

pub mod clones;
mod cut;
mod directory;
mod engine;
mod error;
mod node;
mod parent;
pub mod precopy;
pub mod problems;
mod read;
mod report;
mod selection;
mod stats;
pub mod tree;
mod walk;

use std::path::PathBuf;

use jiff::Timestamp;
use stillpoint_repository::{Compression, Id, Repository, Snapshot, SnapshotMeta, Writer};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use self::{
    engine::Engine,
    parent::{Parent, Trees, Trust},
    selection::Selection,
};
pub use self::{
    error::Error,
    report::{Counts, LeftOut, Problem, ProblemKind, Progress, Read, Report},
    selection::OWN_PREFIX,
};
use crate::volume::{DEGRADED, READ_LIVE, TAG, check_name};

/// What to back up, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The backup's name: a tag of the snapshot.
    pub name: String,
    /// Host that the snapshot is of.
    pub host: String,
    /// Directories or files of this host.
    pub paths: Vec<PathBuf>,
    /// Patterns of what is left out: of whole paths if they begin with a slash, else of their ends.
    pub exclude: Vec<String>,
    /// Whether to go on below mount points.
    pub cross_mounts: bool,
    /// Whether to read every file, whatever the parent has.
    pub read_all: bool,
    /// How hard to compress.
    pub compression: Compression,
    /// Program and version that the snapshot names.
    pub program_version: Option<String>,
    /// Ends the work early, without a snapshot.
    pub cancel: CancellationToken,
}

impl Request {
    /// These paths of a host as a volume: all that is below them on their file systems, read where the parent does not
    /// spare it.
    pub fn new(name: impl Into<String>, host: impl Into<String>, paths: Vec<PathBuf>) -> Self {
        Self {
            name: name.into(),
            host: host.into(),
            paths,
            exclude: Vec::new(),
            cross_mounts: false,
            read_all: false,
            compression: Compression::default(),
            program_version: None,
            cancel: CancellationToken::new(),
        }
    }
}

/// Backs up directory trees as one snapshot.
///
/// The newest snapshot of the same name, host and paths is the parent. Cancelling stops the threads at their next step,
/// removes the lock and leaves no snapshot; so does dropping the future, which nobody waits for.
///
/// # Errors
/// [`Error`] says what kept the backup from being written at all; what it lacks is in the report.
pub async fn backup(
    repository: &Repository,
    request: &Request,
    progress: watch::Sender<Progress>,
) -> Result<Report, Error> {
    let started = Timestamp::now();
    check_name(&request.name).map_err(|reason| Error::Name { name: request.name.clone(), reason })?;
    let selection = Selection::new(&request.paths, &request.exclude, request.cross_mounts)?;
    let parent = match request.read_all {
        true => None,
        false => newest(repository, (&request.name, &request.host), &selection.paths(), false).await?,
    };
    let writer = repository.writer_with(request.compression).await?;
    let read = read(repository, &writer, selection.clone(), parent.as_ref(), (progress, &request.cancel)).await;
    let report = match read {
        Ok(report) => report,
        Err(error) => {
            writer.abandon().await;
            return Err(error);
        }
    };
    let stats = writer.clone();
    let paths = selection.paths();
    let (name, host, counts) = (request.name.as_str(), request.host.as_str(), report.counts);
    let commit = Commit { name, host, paths, time: started, read_live: true, counts };
    let commit = commit.run(repository, writer, &report.tree, &report.problems, request.program_version.clone());
    let snapshot = commit.await?;
    Ok(report.committed(snapshot, parent.map(|parent| parent.id), stats.stats(), started))
}

/// What a volume backup says of itself beside its tree.
#[derive(Debug, Clone)]
pub struct Commit<'a> {
    /// Its name: a tag of the snapshot.
    pub name: &'a str,
    /// Host that it is of.
    pub host: &'a str,
    /// Directories or files of this host that it holds.
    pub paths: Vec<String>,
    /// When it was read, or an instant at which its writers stood still.
    pub time: Timestamp,
    /// Whether its files could be written while they were read, so that a change may have left no trace.
    pub read_live: bool,
    /// How many of what it holds.
    pub counts: Counts,
}

impl Commit<'_> {
    /// Makes a tree that was read a volume backup; ends the writer.
    ///
    /// # Errors
    /// [`Error::Name`], or those of the repository: then there is no backup.
    pub async fn run(
        self,
        repository: &Repository,
        writer: Writer,
        tree: &Id,
        problems: &[Problem],
        program_version: Option<String>,
    ) -> Result<Id, Error> {
        let Self { name, host, paths, time, read_live, counts } = self;
        check_name(name).map_err(|reason| Error::Name { name: name.to_owned(), reason })?;
        let mut tags = vec![TAG.to_owned(), name.to_owned()];
        if read_live {
            tags.push(READ_LIVE.to_owned());
        }
        if !problems.is_empty() {
            tags.push(DEGRADED.to_owned());
            problems::record(repository, tree, problems).await?;
        }
        let summary = Some(counts.summary(time, writer.stats()));
        let meta = SnapshotMeta { tree: *tree, hostname: host.to_owned(), paths, tags, time, program_version, summary };
        Ok(writer.commit(meta).await?)
    }
}

/// The newest snapshot of the same name, host and paths; if `stopped`, of those whose writers stood still.
///
/// # Errors
/// Those of the repository.
pub async fn newest(
    repository: &Repository,
    (name, host): (&str, &str),
    paths: &[String],
    stopped: bool,
) -> Result<Option<Snapshot>, Error> {
    let fits = |snapshot: &Snapshot| {
        let is_of_it = snapshot.has_tag(TAG) && snapshot.has_tag(name) && snapshot.hostname == host;
        is_of_it && snapshot.paths == paths && !(stopped && snapshot.has_tag(READ_LIVE))
    };
    Ok(repository.snapshots().await?.into_iter().rfind(fits))
}

async fn read(
    repository: &Repository,
    writer: &Writer,
    selection: Selection,
    parent: Option<&Snapshot>,
    (progress, cancel): (watch::Sender<Progress>, &CancellationToken),
) -> Result<report::Read, Error> {
    let parent = parent.map(|snapshot| {
        let trees = Trees::Repository(Box::new(writer.reader()), Handle::current());
        Parent::new(trees, snapshot.tree, snapshot.time, Trust::Before(snapshot.time))
    });
    let engine = Engine::new(writer.threads(), repository.chunker_seed(), progress);
    run(engine, selection, parent, cancel).await
}

/// Runs an engine to its end; cancelling stops it at its next step, and so does dropping the future, which nobody waits
/// for.
async fn run(
    engine: Engine,
    selection: Selection,
    parent: Option<Parent>,
    cancel: &CancellationToken,
) -> Result<report::Read, Error> {
    let stop = engine.stop_when_dropped();
    let mut work = tokio::task::spawn_blocking(move || engine.run(&selection, parent, None));
    let done = tokio::select! {
        done = &mut work => done,
        () = cancel.cancelled() => {
            drop(stop);
            work.await
        }
    };
    done.map_err(|_| Error::Stopped)?
}
