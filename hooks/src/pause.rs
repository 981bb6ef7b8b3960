//! Pausing the processes of a cgroup, in both generations of cgroups.
//!
//! Both are files in a directory, but only the second tells by an event that a cgroup was resumed behind our back; of
//! the first its state is looked at again and again.

mod cgroup_v1;
mod cgroup_v2;

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Why a cgroup cannot be paused or resumed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Its directory or one of its files cannot be used.
    #[error("cannot use {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no cgroup that can be paused.
    #[error("{path} is not a cgroup that can be paused: it has neither cgroup.freeze nor freezer.state, or is the root",
        path = .0.display())]
    NotACgroup(PathBuf),
    /// It, or one above it, is paused already.
    #[error("it was paused before, by somebody else; resume it first, or leave it out")]
    PausedBefore,
    /// Its processes did not stop in time.
    #[error("its processes did not stop within {} ms: one is in an uninterruptible wait", .0.as_millis())]
    TooLate(Duration),
}

/// A cgroup that can be paused.
#[derive(Debug)]
pub(crate) struct Cgroup {
    inode: u64,
    files: Files,
}

#[derive(Debug)]
enum Files {
    V1(cgroup_v1::Files),
    V2(cgroup_v2::Files),
}

impl Cgroup {
    /// Opens the cgroup at `path`, a directory below a mount of a cgroup hierarchy.
    ///
    /// # Errors
    /// When it is none that can be paused.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let metadata = fs::metadata(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        let files = if path.join(cgroup_v2::FREEZE).exists() {
            Files::V2(cgroup_v2::Files::open(path)?)
        } else if path.join(cgroup_v1::STATE).exists() {
            Files::V1(cgroup_v1::Files::open(path)?)
        } else {
            return Err(Error::NotACgroup(path.to_owned()));
        };
        Ok(Self { inode: metadata.ino(), files })
    }

    /// The inode of its directory: a cgroup made later under the same name has another.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether it is paused, or about to be.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub(crate) fn is_paused(&self) -> Result<bool, Error> {
        match &self.files {
            Files::V1(files) => files.is_paused(),
            Files::V2(files) => files.is_paused(),
        }
    }

    /// Pauses it and waits until every process stands still, as long as `go_on` says so.
    ///
    /// # Errors
    /// When it was paused before, or not every process stood still by `deadline`; it is resumed then.
    pub(crate) fn pause(&mut self, deadline: Instant, go_on: &dyn Fn() -> bool) -> Result<(), Error> {
        if self.is_paused()? {
            return Err(Error::PausedBefore);
        }
        let began = Instant::now();
        let stands = match &mut self.files {
            Files::V1(files) => files.pause(deadline, go_on),
            Files::V2(files) => files.pause(deadline, go_on),
        };
        match stands {
            Ok(true) => Ok(()),
            Ok(false) => self.resume().and(Err(Error::TooLate(began.elapsed()))),
            Err(error) => self.resume().and(Err(error)),
        }
    }

    /// Whether it stood still without a break since it was paused, or since this was asked before.
    pub(crate) fn stood_still(&mut self) -> Result<bool, Error> {
        match &mut self.files {
            Files::V1(files) => files.stands(),
            Files::V2(files) => files.stood_still(),
        }
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        match &mut self.files {
            Files::V1(files) => files.resume(),
            Files::V2(files) => files.resume(),
        }
    }
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::File { path: path.to_owned(), source })
}
