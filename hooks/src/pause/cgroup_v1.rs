//! The freezer of cgroups' first generation: `freezer.state`.
//!
//! It sends no events: reading the state is what makes the kernel look whether every process stands still, so it is
//! read until it says so, and again now and then.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{Error, read, write};

pub(super) const STATE: &str = "freezer.state";
const PARENT: &str = "freezer.parent_freezing";
/// Between two looks.
const LOOK: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(super) struct Files {
    state: PathBuf,
    parent: PathBuf,
}

impl Files {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let files = Self { state: path.join(STATE), parent: path.join(PARENT) };
        files.is_paused().map(|_| files)
    }

    pub(super) fn is_paused(&self) -> Result<bool, Error> {
        Ok(self.state()? != "THAWED" || read(&self.parent)?.trim() == "1")
    }

    pub(super) fn pause(&mut self, deadline: Instant, go_on: &dyn Fn() -> bool) -> Result<bool, Error> {
        write(&self.state, "FROZEN")?;
        while !self.stands()? {
            if Instant::now() >= deadline || !go_on() {
                return Ok(false);
            }
            thread::sleep(LOOK);
        }
        Ok(true)
    }

    pub(super) fn stands(&self) -> Result<bool, Error> {
        Ok(self.state()? == "FROZEN")
    }

    pub(super) fn resume(&mut self) -> Result<(), Error> {
        write(&self.state, "THAWED")
    }

    fn state(&self) -> Result<String, Error> {
        Ok(read(&self.state)?.trim().to_owned())
    }
}
