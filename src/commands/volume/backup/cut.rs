//! A volume backup at one instant: hooks, a stop and the capture of every directory in the same window.
//!
//! The same session and the same captures as a cluster's backup, for whoever has directories of one host: data flows from
//! flags to plans, from plans to captures, and from these to one snapshot.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, bail};
use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use stillpoint_agent::{
    take_turn,
    volume::{self, Capture, Choice, Earlier, Plan, Settings, Stored, Target, Volume, Wish},
};
use stillpoint_api::{Level, Method};
use stillpoint_filetree::backup::{self, Commit, Counts, Problem, Progress, Report, tree};
use stillpoint_hooks::{
    guard::Release,
    mounts,
    session::{Ended, HookFailure, Session},
    turn::Turn,
};
use stillpoint_repository::{Repository, Snapshot, Writer};
use tokio::sync::{Mutex, watch};
use tokio_util::task::TaskTracker;

use super::{
    stop::{Asked, Hooked, Stopping, failures},
    summary::{Cut, Taken},
};
use crate::{args::UsageError, interrupt, output};

/// How often a cut is taken that turns out not to be whole.
const ATTEMPTS: u32 = 3;
const INTERRUPTED: &str = "interrupted: nothing was kept";

/// What to capture.
pub(super) struct Request {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) paths: Vec<PathBuf>,
    pub(super) read_all: bool,
    pub(super) program_version: Option<String>,
    pub(super) wish: Wish,
    pub(super) settings: Settings,
    pub(super) asked: Asked,
}

/// The captures of one backup, shared with the work of a session that may be dropped.
type Captures = Arc<Mutex<Vec<Box<dyn Capture>>>>;

/// A cut that was whole.
struct Whole {
    instant: Timestamp,
    attempts: u32,
    release: Option<Release>,
    post_failed: Vec<HookFailure>,
}

/// Backs up directories at one instant.
pub(super) async fn run(
    repository: &Repository,
    writer: Writer,
    request: Request,
    progress: watch::Sender<Progress>,
) -> anyhow::Result<(Report, Cut)> {
    let started = (Timestamp::now(), Instant::now());
    let paths = resolve(&request.paths)?;
    let work = capture(repository, &writer, &request, &paths, progress);
    let done = interrupt::cancelling(&request.settings.cancel, Box::pin(work)).await?;
    let (whole, stored) = match done {
        Ok(done) => done,
        Err(error) => {
            writer.abandon().await;
            return Err(error);
        }
    };
    commit(repository, writer, &request, &paths, whole, stored, started.1).await
}

fn resolve(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let resolve = |path: &PathBuf| path.canonicalize().with_context(|| format!("cannot back up {}", path.display()));
    let mut paths = paths.iter().map(resolve).collect::<anyhow::Result<Vec<_>>>()?;
    paths.sort();
    paths.dedup();
    if let Some(pair) = paths.windows(2).find(|pair| pair[1].starts_with(&pair[0])) {
        let (inner, outer) = (pair[1].display(), pair[0].display());
        return Err(UsageError(format!("{inner} lies in {outer}: back them up under two names")).into());
    }
    Ok(paths)
}

async fn capture(
    repository: &Repository,
    writer: &Writer,
    request: &Request,
    paths: &[PathBuf],
    progress: watch::Sender<Progress>,
) -> anyhow::Result<(Whole, Vec<Stored>)> {
    let journal = request.settings.guard.journal.clone();
    for cleaned in tokio::task::spawn_blocking(move || volume::clean(&journal)).await?? {
        output::note(format_args!("stillpoint: left by a backup that was killed: {}", output::printable(&cleaned)));
    }
    let turn = turn(request, paths).await?;
    let earlier = if request.read_all { None } else { earlier(repository, request, paths).await? };
    let mut planned = Vec::new();
    for path in paths {
        planned.push(plan(path, request).await?);
    }
    let mut captures: Vec<Box<dyn Capture>> = Vec::new();
    for (volume, plan) in planned {
        let earlier = match &earlier {
            Some(snapshot) => in_snapshot(writer, snapshot, &volume.path).await?,
            None => None,
        };
        let target = Target { repository, writer, earlier };
        match volume::prepare(volume, plan, target, &request.settings, progress.clone()).await {
            Ok(capture) => captures.push(capture),
            Err(error) => {
                abandon(captures).await;
                return Err(error.into());
            }
        }
    }
    let captures = Arc::new(Mutex::new(captures));
    let whole = cut(&captures, request).await;
    // what is copied stands still for nobody
    drop(turn);
    let captures = std::mem::take(&mut *captures.lock().await);
    let whole = match whole {
        Ok(whole) => whole,
        Err(error) => {
            abandon(captures).await;
            return Err(error);
        }
    };
    store(captures).await.map(|stored| (whole, stored))
}

/// Takes the filesystems of the directories among the processes of this host, unless nothing is to be stopped or made.
async fn turn(request: &Request, paths: &[PathBuf]) -> anyhow::Result<Option<Turn>> {
    if request.wish.method == Some(Method::Live) {
        return Ok(None);
    }
    let device = |path: &PathBuf| mounts::of(path).map(|filesystem| filesystem.device);
    let devices = paths.iter().map(device).collect::<Result<_, _>>()?;
    let mut told = Vec::new();
    loop {
        let taken = tokio::select! {
            taken = take_turn(&request.settings.guard.journal, &devices, &request.name, &told) => taken?,
            () = request.settings.cancel.cancelled() => bail!(INTERRUPTED),
        };
        match taken {
            Ok(turn) => return Ok(Some(turn)),
            Err(behind) => told = behind,
        }
        output::note(format_args!("stillpoint: waiting for {}", output::printable(&told.join(", "))));
    }
}

/// Stores one after the other; after the first that fails the others are abandoned, so that nothing is left in them.
async fn store(captures: Vec<Box<dyn Capture>>) -> anyhow::Result<Vec<Stored>> {
    let (mut stored, mut failed) = (Vec::new(), None);
    for capture in captures {
        if failed.is_some() {
            capture.abandon().await;
            continue;
        }
        match capture.store().await {
            Ok(volume) => stored.push(volume),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(stored), |error| Err(error.into()))
}

async fn abandon(captures: Vec<Box<dyn Capture>>) {
    for capture in captures {
        capture.abandon().await;
    }
}

async fn plan(path: &Path, request: &Request) -> anyhow::Result<(Volume, Plan)> {
    let directory = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    anyhow::ensure!(directory.metadata()?.is_dir(), "{} is no directory", path.display());
    let volume = Volume {
        name: path.display().to_string(),
        directory: Arc::new(directory.into()),
        path: path.to_owned(),
        cgroups: request.asked.pause.clone(),
        read_only: false,
    };
    let plan = volume::plan(&volume, request.wish.clone(), &request.settings).await?;
    let Choice { method, reason } = &plan.choice;
    tracing::info!(path = %path.display(), %method, %reason, "chosen");
    Ok((volume, plan))
}

/// The newest backup that spares reading: one of the same directories, whose writers stood still.
async fn earlier(
    repository: &Repository,
    request: &Request,
    paths: &[PathBuf],
) -> Result<Option<Snapshot>, backup::Error> {
    backup::newest(repository, (&request.name, &request.host), &names(paths), true).await
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

async fn in_snapshot(writer: &Writer, snapshot: &Snapshot, path: &Path) -> anyhow::Result<Option<Earlier>> {
    let Some(text) = path.to_str() else { return Ok(None) };
    if path == Path::new("/") {
        return Ok(Some(Earlier { tree: snapshot.tree, stopped: snapshot.time }));
    }
    let found = writer.reader().find(&snapshot.tree, text.trim_start_matches('/')).await?;
    let tree = found.and_then(|node| node.subtree);
    Ok(tree.map(|tree| Earlier { tree, stopped: snapshot.time }))
}

/// Takes the cut until it is whole, a few times.
async fn cut(captures: &Captures, request: &Request) -> anyhow::Result<Whole> {
    let tracker = TaskTracker::new();
    for attempts in 1..=ATTEMPTS {
        match attempt(captures, request, &tracker).await? {
            Ok((instant, release, post_failed)) => return Ok(Whole { instant, attempts, release, post_failed }),
            Err(why) => output::note(format_args!(
                "stillpoint: attempt {attempts} of {ATTEMPTS} was not whole: {}",
                output::printable(&why)
            )),
        }
        join_all(captures.lock().await.iter_mut().map(|capture| capture.recover())).await;
    }
    bail!("no cut was whole in {ATTEMPTS} attempts, so nothing was kept");
}

type Attempted = (Timestamp, Option<Release>, Vec<HookFailure>);

/// One session; the inner error is what made it not whole.
async fn attempt(
    captures: &Captures,
    request: &Request,
    tracker: &TaskTracker,
) -> anyhow::Result<Result<Attempted, String>> {
    let stops = captures.lock().await.iter().map(|capture| capture.stop()).collect();
    let (stopper, hooks): (Stopping, Hooked) = request.asked.session(&request.name, stops, &request.settings);
    let captured = captures.clone();
    let work = async move {
        let instant = Timestamp::now();
        let mut captures = captured.lock().await;
        try_join_all(captures.iter_mut().map(|capture| capture.snapshot())).await.map(|_| instant)
    };
    let session = Session::start(tracker, hooks, stopper, request.asked.limits(), work);
    let report = tokio::select! {
        report = session.ended() => report,
        // which cancels the session: it lets go and runs its post hooks
        () = request.settings.cancel.cancelled() => {
            tracker.close();
            tracker.wait().await;
            bail!(INTERRUPTED);
        }
    };
    for failure in &report.post_failed {
        output::note(format_args!("stillpoint: a post hook failed: {}", output::printable(&failure.what)));
    }
    // a pre hook that failed left nothing to capture
    let failed = failures(&report.failed);
    Ok(match report.ended {
        Ended::Whole(Ok(instant)) => Ok((instant, report.release, report.post_failed)),
        Ended::Whole(Err(error @ volume::Error::GivesWay { .. })) => Err(error.to_string()),
        Ended::Whole(Err(error)) => return Err(error.into()),
        Ended::NotWhole(_) if !report.lost_holds.is_empty() => Err(failures(&report.lost_holds)),
        Ended::NotWhole(_) => Err(report.release.map_or_else(String::new, |release| release.reason.to_string())),
        Ended::Lost => Err("the stop ended before everything was captured; --max gives it more time".to_owned()),
        Ended::TooLate(state) => Err(format!("a step took too long: {state:?}")),
        Ended::NotStopped(error) => return Err(error.into()),
        Ended::HookFailed | Ended::NothingLeft => bail!("nothing was captured, because a hook failed: {failed}"),
        Ended::Cancelled => bail!(INTERRUPTED),
        Ended::Panicked(message) => bail!("the session broke down: {message}"),
    })
}

async fn commit(
    repository: &Repository,
    writer: Writer,
    request: &Request,
    paths: &[PathBuf],
    whole: Whole,
    mut stored: Vec<Stored>,
    started: Instant,
) -> anyhow::Result<(Report, Cut)> {
    let hooked = request.asked.has_hooks();
    for volume in &mut stored {
        if hooked && volume.level == Level::Filesystem && volume.choice.method != Method::Live {
            volume.level = Level::Application;
        }
    }
    let read_live = stored.iter().any(|volume| !volume::spares_reading(volume.choice.method, volume.level));
    let roots = paths.iter().cloned().zip(stored.iter().map(|volume| volume.root.clone())).collect();
    let tree = tree::hang(&writer, roots).await?;
    let (mut counts, mut problems, mut left_out, mut taken) = (Counts::default(), Vec::new(), Vec::new(), Vec::new());
    for (path, volume) in paths.iter().zip(stored) {
        taken.push(Taken::of(path, &volume));
        counts = add(counts, volume.counts);
        let below = |inside: &str| path.join(inside.trim_start_matches('/')).display().to_string();
        problems.extend(volume.problems.into_iter().map(|problem| Problem { path: below(&problem.path), ..problem }));
        left_out.extend(volume.left_out.into_iter().map(|mount| backup::LeftOut { path: below(&mount.path) }));
    }
    let stats = writer.clone();
    let (name, host) = (request.name.as_str(), request.host.as_str());
    let commit = Commit { name, host, paths: names(paths), time: whole.instant, read_live, counts };
    let snapshot = commit.run(repository, writer, &tree, &problems, request.program_version.clone()).await?;
    let (stats, seconds) = (stats.stats(), started.elapsed().as_secs_f64());
    let report = Report { snapshot, tree, parent: None, counts, stats, problems, left_out, seconds };
    let post_failed = whole.post_failed.into_iter().map(|failure| failure.what).collect();
    Ok((report, Cut::new(whole.instant, whole.attempts, whole.release, taken, post_failed)))
}

fn add(sum: Counts, more: Counts) -> Counts {
    Counts {
        files_new: sum.files_new + more.files_new,
        files_changed: sum.files_changed + more.files_changed,
        files_unmodified: sum.files_unmodified + more.files_unmodified,
        directories: sum.directories + more.directories,
        others: sum.others + more.others,
        bytes: sum.bytes + more.bytes,
        bytes_read: sum.bytes_read + more.bytes_read,
    }
}
