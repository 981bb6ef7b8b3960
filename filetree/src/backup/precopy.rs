//! Copies a directory in passes, so that little is left to read while its writers stand still.
//!
//! ```text
//! pass    look at all files ─ drain ─ read what does not look as it did
//! again   while the window would be longer than the budget, and gets shorter
//! window  (writers stand still) read what does not look as it did before the last drain
//! ```
//! The order is what makes it right. A store to a mapped page that is writable already leaves no trace, and a write's
//! stamp is older than its data: both are over, or leave a new stamp, once a drain (freeze and thaw) came after the look.
//!
//! # Guarantees
//! What the window's tree holds is what the directory was while its writers stood still. In the window nothing waits for
//! the store: trees are read here, packs are held.
//! # Limits
//! A file that changed is read whole in the window. Who writes to large files all the time never converges, and is told
//! so with the numbers.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use stillpoint_repository::{BlockingWriter, Id, LocalTrees, Repository, Writer};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Progress, Read,
    engine::Engine,
    parent::{Parent, Trees, Trust},
    run,
    selection::Selection,
    stats::{Changed, Stats},
};

/// Passes at most: what has not converged by then does not.
const MAX_PASSES: u32 = 6;
/// A pass must leave less than this part of what the one before left, or it is the last.
const SHRINKS: f64 = 0.8;
/// What reading one more file costs beside its bytes.
const PER_FILE: Duration = Duration::from_micros(60);
/// Bytes a second that are read before any were measured; slower than disks are, so that a window is not promised short.
const SLOW: f64 = 100e6;
/// A walk that compares with trees takes so much longer than one that only looks.
const COMPARING: u32 = 4;

/// What to copy, and how.
#[derive(Debug)]
pub struct Request {
    /// The directory. Excluded patterns that begin with a slash begin there.
    pub directory: OwnedFd,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// An earlier copy whose unchanged files are not read.
    pub earlier: Option<Earlier>,
    /// How long the window may take for what is read in it.
    pub budget: Duration,
    /// Where what exceeds memory is set aside; on a file system that is not stopped.
    pub spool: PathBuf,
    /// Ends the work early.
    pub cancel: CancellationToken,
}

/// An earlier copy, taken while its writers stood still.
#[derive(Debug, Clone, Copy)]
pub struct Earlier {
    /// Its tree.
    pub tree: Id,
    /// When its writers began to stand still.
    pub stopped: Timestamp,
}

/// What the next window is expected to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Passes that were made.
    pub passes: u32,
    /// How long it is expected to take.
    pub window: Duration,
    /// Files that are to be read in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether it keeps to the budget.
    pub within_budget: bool,
}

/// A copy in the making.
pub struct Precopy {
    writer: Writer,
    seed: u64,
    selection: Selection,
    request: Request,
    progress: watch::Sender<Progress>,
    last: Option<Pass>,
    /// Bytes a second that were read.
    speed: f64,
    /// Bytes that all passes have read.
    bytes_read: u64,
}

impl std::fmt::Debug for Precopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Precopy").field("request", &self.request).finish_non_exhaustive()
    }
}

/// What a pass has stored, and what its files looked like before its drain.
struct Pass {
    tree: Id,
    time: Timestamp,
    trees: Arc<LocalTrees>,
    stats: Arc<Stats>,
}

/// Why a pass was not made.
#[derive(Debug, thiserror::Error)]
pub enum PassError<E> {
    /// The copy failed.
    #[error(transparent)]
    Copy(#[from] Error),
    /// The drain did.
    #[error("the writes under way could not be drained: {0}")]
    Drain(E),
}

impl Precopy {
    /// Nothing is read yet.
    ///
    /// # Errors
    /// [`Error::Pattern`].
    pub fn new(
        repository: &Repository,
        writer: &Writer,
        request: Request,
        progress: watch::Sender<Progress>,
    ) -> Result<Self, Error> {
        let directory = request.directory.try_clone().map_err(root_error)?;
        let selection = Selection::of_directory(directory, &request.exclude)?;
        let (writer, seed) = (writer.clone(), repository.chunker_seed());
        Ok(Self { writer, seed, selection, request, progress, last: None, speed: SLOW, bytes_read: 0 })
    }

    /// Makes passes until the window would keep to the budget, or further ones do not help; `drain` ends all writes that
    /// are under way and makes later ones leave a trace, as freezing and thawing at once does.
    ///
    /// # Errors
    /// The copy or a drain failed.
    pub async fn converge<E, F: Future<Output = Result<(), E>>>(
        &mut self,
        mut drain: impl FnMut() -> F,
    ) -> Result<Forecast, PassError<E>> {
        let mut before: Option<Forecast> = None;
        for passes in 1..=MAX_PASSES {
            let stats = self.look().await?;
            if let Some(forecast) = self.forecast(&stats, passes - 1) {
                let shrinks =
                    before.is_none_or(|before| forecast.window.as_secs_f64() < SHRINKS * before.window.as_secs_f64());
                if forecast.within_budget || !shrinks {
                    return Ok(forecast);
                }
                before = Some(forecast);
            }
            drain().await.map_err(PassError::Drain)?;
            self.pass(stats).await?;
        }
        let stats = self.look().await?;
        // passes were made, so there is something to compare with
        self.forecast(&stats, MAX_PASSES).ok_or(PassError::Copy(Error::Stopped))
    }

    /// Reads what the passes have not, while the writers stand still. May be called again, for a window that is retaken.
    ///
    /// Its packs are held: [`Writer::send_packs`] after the release.
    ///
    /// # Errors
    /// The copy failed.
    pub async fn window(&mut self) -> Result<Read, Error> {
        let Some(last) = &self.last else { return Err(Error::Stopped) };
        let parent =
            Parent::new(Trees::Local(last.trees.clone()), last.tree, last.time, Trust::Drained(last.stats.clone()));
        self.writer.hold_packs(&self.request.spool);
        self.read(self.writer.threads(), Some(parent)).await
    }

    /// Bytes of files that were read so far, in all passes and windows.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    async fn read(&mut self, writer: BlockingWriter, parent: Option<Parent>) -> Result<Read, Error> {
        // each pass counts its own
        self.progress.send_replace(Progress::default());
        let engine = Engine::new(writer, self.seed, self.progress.clone());
        let read = run(engine, self.selection.clone(), parent, &self.request.cancel).await?;
        self.bytes_read += read.counts.bytes_read;
        Ok(read)
    }

    async fn look(&self) -> Result<Stats, Error> {
        let (selection, stopped) = (self.selection.clone(), Arc::new(AtomicBool::new(false)));
        let seen = stopped.clone();
        let walk = tokio::task::spawn_blocking(move || Stats::take(&selection, &seen));
        let taken = tokio::select! {
            taken = walk => taken.map_err(|_| Error::Stopped)?,
            () = self.request.cancel.cancelled() => {
                stopped.store(true, std::sync::atomic::Ordering::Relaxed);
                return Err(Error::Stopped);
            }
        };
        taken.map_err(|error| root_error(error.into()))?.ok_or(Error::Stopped)
    }

    async fn pass(&mut self, stats: Stats) -> Result<(), Error> {
        let parent = match (&self.last, self.request.earlier) {
            (Some(last), _) => {
                let (trees, trust) = (Trees::Local(last.trees.clone()), Trust::Drained(last.stats.clone()));
                Some(Parent::new(trees, last.tree, last.time, trust))
            }
            (None, Some(Earlier { tree, stopped })) => {
                let trees = Trees::Repository(Box::new(self.writer.reader()), Handle::current());
                Some(Parent::new(trees, tree, stopped, Trust::Before(stopped)))
            }
            (None, None) => None,
        };
        let (time, started) = (Timestamp::now(), Instant::now());
        let trees = self.writer.local_trees(&self.request.spool);
        let writer = self.writer.threads().keeping(trees.clone());
        let read = self.read(writer, parent).await?;
        let (bytes, seconds) = (read.counts.bytes_read, started.elapsed().as_secs_f64());
        if bytes >= 16 << 20 {
            self.speed = f64::max(bytes as f64 / seconds, 1e6);
        }
        self.last = Some(Pass { tree: read.tree, time, trees, stats: Arc::new(stats) });
        Ok(())
    }

    /// What the window would read now; none before the first pass.
    fn forecast(&self, stats: &Stats, passes: u32) -> Option<Forecast> {
        let Changed { files, bytes } = stats.changed_since(&self.last.as_ref()?.stats);
        let reading =
            PER_FILE * u32::try_from(files).unwrap_or(u32::MAX) + Duration::from_secs_f64(bytes as f64 / self.speed);
        let window = stats.took * COMPARING + reading;
        Some(Forecast { passes, window, files, bytes, within_budget: window <= self.request.budget })
    }
}

fn root_error(source: std::io::Error) -> Error {
    Error::Path { path: PathBuf::from("/"), source }
}
