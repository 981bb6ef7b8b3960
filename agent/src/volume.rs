//! Captures a volume at the instant: the methods behind one trait, and which of them fits.
//!
//! Whoever stops writers knows nothing of how a volume is copied, and a method nothing of who else is stopped with it: so
//! many volumes are stopped, and captured, as one cut.
//!
//! ```text
//! look ─ choose ─ prepare ─ (stop) ─ snapshot ─ (release) ─ store
//! facts   a value   passes            no network             upload
//! ```
//!
//! # Guarantees
//! - What [`Capture::snapshot`] takes is not changed by what is written after the release, and it waits for no network.
//! - What a capture leaves in a volume has a hidden name, and is removed whatever becomes of the capture.
//! # Assumptions
//! - The caller stops what [`Capture::stop`] says, throws away what a stop that was not whole has covered, and calls
//!   either [`Capture::store`] or [`Capture::abandon`] at the end.

mod btrfs;
mod choose;
mod copying;
mod facts;
mod leftovers;
mod looks;
mod passes;
mod reflink;
mod strangers;
mod whole;
mod yielding;

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use stillpoint_api::{Level, Method};
pub use stillpoint_filetree::backup::precopy::{Earlier, Forecast};
use stillpoint_filetree::backup::{self, Counts, LeftOut, Problem, Progress, Read};
use stillpoint_hooks::{
    JournalError,
    guard::{self, Config, Guard, Stop},
    host::PodStop,
    mounts,
};
use stillpoint_repository::{Id, Node, Repository, Writer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{btrfs::Btrfs, copying::Copying, passes::Passes, reflink::Reflink, whole::Whole, yielding::Yielding};
pub use self::{
    choose::{Choice, Facts, Refused, Wish, choose},
    facts::{Room, look},
    leftovers::clean,
    looks::Looks,
};

/// A directory whose tree is a volume.
#[derive(Debug, Clone)]
pub struct Volume {
    /// What people call it.
    pub name: String,
    /// The directory: one descriptor for all clones, because the path may lead through it.
    pub directory: Arc<OwnedFd>,
    /// A path by which the guard's process opens it, while the directory is open.
    pub path: PathBuf,
    /// The cgroups of all that may write to it, where they are known.
    pub cgroups: Vec<PathBuf>,
    /// Whether nobody may write to it.
    pub read_only: bool,
}

/// How volumes are captured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a window may take for what is read in it.
    pub budget: Duration,
    /// A folder for what exceeds memory, on a filesystem that is not stopped.
    pub spool: PathBuf,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// The guard that drains.
    pub guard: Config,
    /// How long a drain may take, and what it must not stop.
    pub drain: Stop,
    /// What writes on this host, looked at for all volumes together.
    pub looks: Looks,
    /// Ends the work early.
    pub cancel: CancellationToken,
}

/// Where a volume is stored.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// Writes to it; what is captured is kept only by this writer's commit.
    pub writer: &'a Writer,
    /// An earlier copy of the volume that spares reading: one that [`spares_reading`] says yes to.
    pub earlier: Option<Earlier>,
}

/// One volume on its way through one cut.
#[async_trait]
pub trait Capture: Send {
    /// What must stand still for it; the caller names the pod. With nothing in it no stop is needed.
    fn stop(&self) -> PodStop;

    /// Takes the volume as it is now, while its writers stand still. May be called again, for a cut that is retaken.
    ///
    /// # Errors
    /// It could not be taken.
    async fn snapshot(&mut self) -> Result<(), Error>;

    /// Stores what the last snapshot took, after the release, and removes what was left in the volume.
    ///
    /// # Errors
    /// It could not be stored.
    async fn store(self: Box<Self>) -> Result<Stored, Error>;

    /// Once the writers go on after a snapshot that failed: removes what it made in the volume, and gets ready for a cut
    /// that is retaken.
    async fn recover(&mut self) {}

    /// Removes what was left in the volume.
    async fn abandon(self: Box<Self>);
}

/// A volume that is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its directory, with its tree.
    pub root: Node,
    /// Its tree.
    pub tree: Id,
    /// How many of what; bytes read are those of all passes.
    pub counts: Counts,
    /// What it lacks, by path below its directory.
    pub problems: Vec<Problem>,
    /// Mount points in it that were not crossed.
    pub left_out: Vec<LeftOut>,
    /// How it was copied, and why so.
    pub choice: Choice,
    /// The kind of filesystem that it lies on.
    pub filesystem: String,
    /// What it is worth, if the stop was whole; that its hooks ran, the caller knows.
    pub level: Level,
    /// Who may have written to it though its writers stood still.
    pub strangers: Vec<String>,
    /// What was done while its writers stood still.
    pub window: Window,
}

/// What was done while a volume's writers stood still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// Passes that were made before it.
    pub passes: u32,
    /// How long the volume took in it.
    pub took: Duration,
    /// Bytes of files that were read in it.
    pub bytes_read: u64,
}

/// Whether a later copy may take as unchanged what looks as it did when this one was taken: a store to a mapped page
/// leaves no trace where the copy was made without a drain.
#[must_use]
pub fn spares_reading(method: Method, level: Level) -> bool {
    level >= Level::Filesystem && method != Method::ReadPaused
}

/// Why a volume is not captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No method fits it.
    #[error("the volume {volume}: {source}")]
    Refused {
        /// The volume.
        volume: String,
        /// Why.
        source: Refused,
    },
    /// The volume's filesystem cannot be told.
    #[error("cannot look at the volume {volume}: {source}")]
    Look {
        /// The volume.
        volume: String,
        /// Why.
        source: mounts::Error,
    },
    /// Its directory cannot be used.
    #[error("cannot use the directory of the volume {volume}: {source}")]
    Directory {
        /// The volume.
        volume: String,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be read or stored.
    #[error("cannot copy the volume {volume}: {source}")]
    Copy {
        /// The volume.
        volume: String,
        /// Why.
        source: backup::Error,
    },
    /// Its writes could not be drained.
    #[error("cannot drain the writes of the volume {volume}: {source}")]
    Drain {
        /// The volume.
        volume: String,
        /// Why.
        source: guard::Error,
    },
    /// What is going to be made in it cannot be written down.
    #[error("cannot write down what is going to be made in the volume {volume}: {source}")]
    Journal {
        /// The volume.
        volume: String,
        /// Why.
        source: JournalError,
    },
    /// A snapshot or clones cannot be made in it.
    #[error("cannot make a snapshot or clones in the volume {volume}: {source}; {room}")]
    NotTaken {
        /// The volume.
        volume: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What was free in it then.
        room: Room,
    },
    /// A snapshot or clones could not be made in it while its writers stood still; another method fits, for a cut that is
    /// retaken.
    #[error("{source}; {method} fits instead")]
    GivesWay {
        /// What happened.
        source: Box<Error>,
        /// The method.
        method: Method,
    },
    /// The same, and no other method fits.
    #[error("{source}; {why}")]
    NothingElse {
        /// What happened.
        source: Box<Error>,
        /// Why no other fits.
        why: Refused,
    },
    /// Too much changes for the window.
    #[error("the volume {volume} changes too fast for precopy: after {} passes {} files with {} MiB changed again, \
             which takes about {} ms to read while its writers stand still, more than the {} ms that it may; give more \
             time, or choose another method", .forecast.passes, .forecast.files, .forecast.bytes >> 20,
             .forecast.window.as_millis(), .budget.as_millis())]
    NotConverged {
        /// The volume.
        volume: String,
        /// What the window would read.
        forecast: Forecast,
        /// How long it may take.
        budget: Duration,
    },
    /// The work ended early.
    #[error("the work on the volume {volume} ended early")]
    Stopped {
        /// The volume.
        volume: String,
    },
}

/// How a volume is going to be captured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is known of it.
    pub facts: Facts,
    /// What was asked for.
    pub wish: Wish,
    /// What was chosen.
    pub choice: Choice,
}

/// Looks at a volume and chooses its method; nothing is read yet.
///
/// # Errors
/// [`Error::Refused`] where no method fits, or it cannot be looked at.
pub async fn plan(volume: &Volume, wish: Wish, settings: &Settings) -> Result<Plan, Error> {
    let facts = look(volume, settings).await?;
    let refused = |source| Error::Refused { volume: volume.name.clone(), source };
    let choice = choose(&facts, &wish).map_err(refused)?;
    Ok(Plan { facts, wish, choice })
}

/// Makes a volume ready for its cut; the long part of a copy that needs no stop, and the drains that it needs, are here.
///
/// # Errors
/// [`Error::NotConverged`] where too much changes and no other method fits, and whatever kept it from being read.
pub async fn prepare(
    volume: Volume,
    plan: Plan,
    target: Target<'_>,
    settings: &Settings,
    progress: watch::Sender<Progress>,
) -> Result<Box<dyn Capture>, Error> {
    let Plan { facts, wish, choice } = plan;
    let drains = facts.cannot_freeze.is_none();
    let mut taking = Taking { volume, filesystem: facts.filesystem.clone(), drains, choice };
    if taking.choice.method == Method::Precopy {
        let (precopy, forecast) = passes::converge(&taking, target, settings, progress.clone()).await?;
        if forecast.within_budget {
            return Ok(Box::new(Passes::new(taking, target.writer, precopy, forecast)));
        }
        let volume = taking.volume.name.clone();
        let error = Error::NotConverged { volume, forecast, budget: settings.budget };
        let other = choose::instead_of(&taking.choice, &error.to_string(), &facts, &wish);
        let Ok(choice) = other else { return Err(error) };
        tracing::warn!(volume = %taking.volume.name, method = %choice.method, "precopy gives way: {error}");
        taking.choice = choice;
    }
    let (repository, writer) = (target.repository.clone(), target.writer.clone());
    let inputs = Inputs { repository, writer, earlier: target.earlier, settings: settings.clone(), progress };
    Ok(Box::new(Box::pin(Yielding::prepare(taking, facts, wish, inputs)).await?))
}

/// What a method copies with. Cheap to clone.
#[derive(Clone)]
struct Inputs {
    repository: Repository,
    writer: Writer,
    earlier: Option<Earlier>,
    settings: Settings,
    progress: watch::Sender<Progress>,
}

/// Prepares a method that copies in one go, which is not precopy.
async fn at_once(taking: Taking, inputs: Inputs) -> Result<Box<dyn Capture>, Error> {
    let (method, settings) = (taking.choice.method, inputs.settings.clone());
    let copying = Copying::new(taking, inputs);
    Ok(match method {
        Method::Btrfs => Box::new(Btrfs::prepare(copying, &settings).await?),
        Method::Reflink => Box::new(Reflink::prepare(copying, &settings).await?),
        Method::Precopy | Method::ReadPaused | Method::Live => Box::new(Whole::prepare(copying, &settings).await?),
    })
}

/// What every method knows of its volume.
#[derive(Debug, Clone)]
struct Taking {
    volume: Volume,
    filesystem: String,
    /// Whether its filesystem can be drained.
    drains: bool,
    choice: Choice,
}

impl Taking {
    fn copy_error(&self, source: backup::Error) -> Error {
        Error::Copy { volume: self.volume.name.clone(), source }
    }

    /// What keeps a snapshot or clones from being made.
    fn not_taken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let room = Room::of(&self.volume.directory);
        Error::NotTaken { volume: self.volume.name.clone(), source: source.into(), room }
    }

    fn stopped(&self) -> Error {
        Error::Stopped { volume: self.volume.name.clone() }
    }

    fn directory(&self) -> Result<OwnedFd, Error> {
        let error = |source| Error::Directory { volume: self.volume.name.clone(), source };
        self.volume.directory.try_clone().map_err(error)
    }

    /// The stop of its cgroups, and of writes in flight.
    fn pause(&self) -> PodStop {
        let drain = if self.drains { vec![self.volume.path.clone()] } else { Vec::new() };
        PodStop { pause: self.volume.cgroups.clone(), drain, ..PodStop::default() }
    }

    fn stored(self, read: Read, level: Level, strangers: Vec<String>, window: Window) -> Result<Stored, Error> {
        let Read { tree, root, counts, problems, left_out } = read;
        // what was read is a directory
        let root = root.ok_or_else(|| self.stopped())?;
        let Self { filesystem, choice, .. } = self;
        Ok(Stored { root, tree, counts, problems, left_out, choice, filesystem, level, strangers, window })
    }
}

/// Ends all writes to a volume that are under way, by a guard of its own.
async fn drain(volume: &Volume, settings: &Settings) -> Result<(), guard::Error> {
    let stop = Stop { drain: vec![volume.path.clone()], rescue: volume.cgroups.clone(), ..settings.drain.clone() };
    Guard::start(&settings.guard).await?.stop(&stop).await?.release().await;
    Ok(())
}

/// Sends what a writer held while nothing could wait for the store.
async fn send(writer: &Writer, taking: &Taking) -> Result<(), Error> {
    writer.send_packs().await.map_err(|error| taking.copy_error(error.into()))
}

fn took(began: Instant, passes: u32, bytes_read: u64) -> Window {
    Window { passes, took: began.elapsed(), bytes_read }
}
