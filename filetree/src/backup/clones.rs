//! Takes a directory by cloning its files, to be read once its writers go on.
//!
//! A clone has an inode and times of its own, so what the system says of a file is taken from the original while nobody
//! writes to it; only content comes from the clone. Clones lie side by side under numbers: their folder is no copy that
//! anybody could mistake for the tree.
//!
//! ```text
//! walk ─┬─ as the parent has it                        (writers stand still)
//!       └─ look, clone ─ taken ┆ read ─ cut ─ … ─ root (writers go on)
//! ```

use std::{
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use rustix::{
    fs::{self, AtFlags, IFlags, Mode, OFlags},
    io::Errno,
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    Error, Read,
    engine::{Engine, StopWhenDropped},
};
use crate::lock;

/// Where the clones of one copy lie, and how far it is.
pub(super) struct Clones {
    pub(super) folder: Arc<OwnedFd>,
    made: AtomicU64,
    taken: Mutex<Option<oneshot::Sender<()>>>,
    go: Mutex<mpsc::Receiver<()>>,
}

/// A directory that is being taken by clones. Dropping it stops the work.
pub struct Cloning {
    taken: oneshot::Receiver<()>,
    go: mpsc::Sender<()>,
    work: JoinHandle<Result<Read, Error>>,
    _stop: StopWhenDropped,
}

impl std::fmt::Debug for Cloning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloning").finish_non_exhaustive()
    }
}

impl Clones {
    /// A folder for clones, and what tells that all are made and that they may be read.
    pub(super) fn new(folder: OwnedFd) -> (Self, oneshot::Receiver<()>, mpsc::Sender<()>) {
        let ((say_taken, taken), (say_go, go)) = (oneshot::channel(), mpsc::channel());
        let clones = Self {
            folder: Arc::new(folder),
            made: AtomicU64::new(0),
            taken: Mutex::new(Some(say_taken)),
            go: Mutex::new(go),
        };
        (clones, taken, say_go)
    }

    /// Clones an open file, and gives the clone's name.
    pub(super) fn add(&self, file: &OwnedFd) -> Result<OsString, Errno> {
        let name = OsString::from(self.made().to_string());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let clone = fs::openat(&self.folder, &name, flags, Mode::RUSR | Mode::WUSR)?;
        match fs::ioctl_ficlone(&clone, file) {
            // a file that is not copied on write has clones that are not, either
            Err(Errno::INVAL) => {
                fs::ioctl_setflags(&clone, fs::ioctl_getflags(&clone)? | IFlags::NOCOW)?;
                fs::ioctl_ficlone(&clone, file)?;
            }
            cloned => cloned?,
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(name)
    }

    /// How many there are, with those that were read and removed.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// A clone that was read is not needed any more.
    pub(super) fn remove(folder: &OwnedFd, name: &std::ffi::OsStr) {
        // the folder is removed with what is left in it
        let _ = fs::unlinkat(folder, name, AtFlags::empty());
    }

    /// Says that all is taken, and waits until it may be read; false if nobody wants it any more.
    pub(super) fn wait(&self) -> bool {
        if let Some(taken) = lock(&self.taken).take() {
            // whoever does not listen sends no word to go on either
            let _ = taken.send(());
        }
        lock(&self.go).recv().is_ok()
    }
}

impl Cloning {
    /// Starts `engine` with the clones that it makes.
    pub(super) fn start(
        engine: Engine,
        run: impl FnOnce(Engine) -> Result<Read, Error> + Send + 'static,
        (taken, go): (oneshot::Receiver<()>, mpsc::Sender<()>),
    ) -> Self {
        let stop = engine.stop_when_dropped();
        Self { taken, go, work: tokio::task::spawn_blocking(move || run(engine)), _stop: stop }
    }

    /// Waits until every file that is to be read is cloned: then the writers may go on.
    ///
    /// # Errors
    /// A file could not be cloned, or the directory not be read.
    pub async fn taken(&mut self) -> Result<(), Error> {
        if (&mut self.taken).await.is_ok() {
            return Ok(());
        }
        match (&mut self.work).await.map_err(|_| Error::Stopped)? {
            Ok(_) => Err(Error::Stopped),
            Err(error) => Err(error),
        }
    }

    /// Reads the clones into the repository.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub async fn read(self) -> Result<Read, Error> {
        let Self { go, work, _stop, .. } = self;
        // the thread that waits for it has ended only after an error
        let _ = go.send(());
        work.await.map_err(|_| Error::Stopped)?
    }
}

/// Clones a file in a directory: an empty one that never has a name.
///
/// # Errors
/// Why files of it cannot be cloned.
pub fn try_out(directory: &OwnedFd) -> io::Result<()> {
    let unnamed =
        || fs::openat(directory, Path::new("."), OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR);
    Ok(fs::ioctl_ficlone(&unnamed()?, &unnamed()?)?)
}
