//! Who may have written to a volume whose known writers stand still.
//!
//! Asked before and after the copy, because a stranger may come and go; and what it wrote is looked for too, because one
//! that came and went between the two has left new stamps.

use std::path::PathBuf;

use jiff::Timestamp;
use stillpoint_filetree::backup::tree;
use stillpoint_hooks::strangers;

use super::{Error, Taking};

/// Those that were seen so far.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    before: Vec<String>,
    after: Vec<String>,
}

impl Strangers {
    /// Looks for them before the stop.
    pub(super) async fn before(taking: &Taking) -> Result<Self, Error> {
        Ok(Self { before: search(taking).await?, after: Vec::new() })
    }

    /// Looks for them once more after the copy, and for what was written since it began.
    pub(super) async fn after(&mut self, taking: &Taking, since: Option<Timestamp>) -> Result<(), Error> {
        self.after = search(taking).await?;
        if let Some(since) = since {
            let directory = taking.directory()?;
            let written = tokio::task::spawn_blocking(move || tree::size(directory, since)).await;
            let written = written.map_err(|_| taking.stopped())?.map_err(|error| taking.copy_error(error))?.written;
            if written > 0 {
                self.after.push(format!("somebody: {written} files were written while its known writers stood still"));
            }
        }
        Ok(())
    }

    pub(super) fn into_names(self) -> Vec<String> {
        let mut names = self.before;
        names.extend(self.after);
        names.sort_unstable();
        names.dedup();
        names
    }
}

async fn search(taking: &Taking) -> Result<Vec<String>, Error> {
    let (path, cgroups): (PathBuf, _) = (taking.volume.path.clone(), taking.volume.cgroups.clone());
    let found = tokio::task::spawn_blocking(move || strangers::search(&path, &cgroups)).await;
    let found = found.map_err(|_| taking.stopped())?;
    let found = found.map_err(|source| Error::Look { volume: taking.volume.name.clone(), source })?;
    Ok(found.into_iter().map(|stranger| stranger.to_string()).collect())
}
