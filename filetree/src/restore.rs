//! Restores a volume backup, or a part of it, into a directory.
//!
//! # Flow
//! [`plan`] reads the trees and looks at the target; nothing is written. [`apply`] makes directories and everything
//! without content, writes the contents in the order of the repository, links, reads back if asked to, and sets the
//! attributes of directories from the deepest up. A marker in the target tells of a restore under way until the end.
//!
//! # Guarantees
//! - Nothing is written outside the target, and nothing that was in it before is changed or overwritten.
//! - Whatever is not restored as it was is named; what is not named is as it was in the backup: content, holes, owner,
//!   permissions, times, extended attributes with capabilities and access control lists, hard links, devices.
//! - A restore that ends early, however, goes on where it stopped; complete files are not written again.
//! - Once [`apply`] returns, everything is on stable storage.
//!
//! # Assumptions
//! Nobody else works in the target meanwhile.
//!
//! # Bounds
//! Memory: about 750 bytes an entry (measured over a million of them) and 100 more for each further blob of a file, and
//! beside that 32 MiB that are read ahead and two blobs a thread. A backup of more than 20 million entries or 50 million
//! blobs, 15 and 5 GB, is refused: a part of it can be restored. Open files: 256 and a few a thread.

mod attributes;
mod content;
mod directories;
mod entries;
mod error;
mod gather;
mod holes;
mod job;
mod make;
mod plan;
mod problem;
mod resume;
mod target;
mod verify;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use serde::Serialize;
use stillpoint_repository::{BulkPlan, Reader};
use tokio::{sync::watch, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use self::{directories::Directories, gather::Gathered, job::Job, plan::Todo};
pub use self::{
    error::Error,
    job::Progress,
    plan::{Counts, Plan},
    problem::{Problem, ProblemKind, Problems},
    target::{MARKER, Source, Start},
    verify::Verified,
};
use crate::{selection::Selection, volume::VolumeBackup};

/// What came of a restore.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was restored.
    pub source: Source,
    /// Where to.
    pub target: PathBuf,
    /// Whether it went on where another stopped.
    pub start: Start,
    /// What the target holds now.
    pub counts: Counts,
    /// Files that were complete before.
    pub already_there: u64,
    /// What was read back, if that was asked for.
    pub verified: Option<Verified>,
    /// What is not as it was.
    pub problems: Problems,
    /// How long it took.
    pub seconds: f64,
}

/// Plans a restore; writes nothing.
///
/// # Errors
/// [`Error::NotEmpty`] and [`Error::OtherRestore`] for a target that is taken, and those of reading.
pub async fn plan(reader: &Reader, backup: &VolumeBackup, selection: &Selection, target: &Path) -> Result<Plan, Error> {
    let source = Source::new(backup.name.clone(), backup.snapshot, &selection.path);
    let start = target::examine(target, &source)?;
    let Gathered { entries, root, counts, problems } = gather::gather(reader, selection).await?;
    let (reader, folder) = (reader.clone(), target.to_owned());
    let look = move || {
        let complete = resume::complete(&folder, start, &entries).map_err(|source| Error::Target {
            action: "open",
            target: folder,
            source,
        })?;
        let (todo, bulk) = Todo::new(&reader, &entries, complete);
        Ok::<_, Error>((entries, todo, bulk))
    };
    let (entries, todo, bulk) = spawn_blocking(look).await??;
    let already_there = todo.complete.iter().filter(|complete| **complete).count() as u64;
    let (packs, read_bytes) = (bulk.packs(), bulk.bytes());
    let target = target.to_owned();
    Ok(Plan { source, target, start, counts, already_there, packs, read_bytes, problems, root, entries, todo, bulk })
}

/// Carries a plan out; `verify` asks to read every file back.
///
/// # Errors
/// What ends a restore: the target cannot be written, the repository cannot be read, or `cancel`. The same restore can
/// be run again then. What concerns single files is no error, but in [`Report::problems`].
pub async fn apply(
    reader: &Reader,
    mut plan: Plan,
    verify: bool,
    progress: watch::Sender<Progress>,
    cancel: CancellationToken,
) -> Result<Report, Error> {
    let started = Instant::now();
    let (counts, already_there, bulk) = (plan.counts, plan.already_there, std::mem::take(&mut plan.bulk));
    let job = spawn_blocking(move || begin(plan, progress, cancel)).await??;
    let verified = work(reader, &job, bulk, verify).await?;
    let problems = std::mem::take(&mut *job.problems());
    let (source, target, start) = (job.source.clone(), job.target.clone(), job.start);
    let seconds = started.elapsed().as_secs_f64();
    Ok(Report { source, target, start, counts, already_there, verified, problems, seconds })
}

fn begin(plan: Plan, progress: watch::Sender<Progress>, cancel: CancellationToken) -> Result<Arc<Job>, Error> {
    let root = target::open(&plan.target, &plan.source, plan.start)?;
    let job = Arc::new(Job::new(plan, Directories::new(root), progress, cancel));
    job.make()?;
    Ok(job)
}

async fn work(reader: &Reader, job: &Arc<Job>, bulk: BulkPlan, verify: bool) -> Result<Option<Verified>, Error> {
    content::write(reader, job.clone(), bulk).await?;
    let job = job.clone();
    spawn_blocking(move || {
        job.make_links()?;
        let verified = if verify { Some(verify::verify(&job)?) } else { None };
        job.complete_directories()?;
        job.sync()?;
        job.complete_root(|| target::unmark(job.directories.root(), &job.target))?;
        Ok(verified)
    })
    .await?
}
