//! Who may have written to a volume whose known writers stand still.
//!
//! Asked before and after the copy, because a stranger may come and go; and what it wrote is looked for too, because one
//! that came and went between the two has left new stamps.

use std::time::SystemTime;

use stillpoint_filetree::backup::OWN_PREFIX;
use stillpoint_hooks::{mounts, strangers};

use super::{Error, Taking, looks::Looks};

/// Changed files that are named; the others are counted.
const NAMED: usize = 5;

/// Those that were seen so far.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    looks: Looks,
    before: Vec<String>,
    after: Vec<String>,
}

impl Strangers {
    /// Looks for them before the stop.
    pub(super) async fn before(taking: &Taking, looks: &Looks) -> Result<Self, Error> {
        Ok(Self { looks: looks.clone(), before: search(taking, looks, None).await?, after: Vec::new() })
    }

    /// An instant after which nothing should change; taken once the known writers stand still.
    pub(super) async fn instant(taking: &Taking) -> Result<SystemTime, Error> {
        let instant = tokio::task::spawn_blocking(strangers::next_instant).await.map_err(|_| taking.stopped())?;
        instant.map_err(|source| Error::Directory { volume: taking.volume.name.clone(), source })
    }

    /// Looks for them once more after the copy, and for what has changed since the instant.
    pub(super) async fn after(&mut self, taking: &Taking, since: Option<SystemTime>) -> Result<(), Error> {
        self.after = search(taking, &self.looks, since).await?;
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

async fn search(taking: &Taking, looks: &Looks, since: Option<SystemTime>) -> Result<Vec<String>, Error> {
    let (path, cgroups) = (taking.volume.path.clone(), taking.volume.cgroups.clone());
    let writers = looks.look().await.ok_or_else(|| taking.stopped())?;
    let search = move || {
        let found = writers.strangers(&path, &cgroups)?;
        let mut names: Vec<_> = found.into_iter().map(|stranger| stranger.to_string()).collect();
        if let Some(since) = since {
            names.extend(changed(&path, since)?);
        }
        Ok(names)
    };
    let found = tokio::task::spawn_blocking(search).await.map_err(|_| taking.stopped())?;
    found.map_err(|source| Error::Look { volume: taking.volume.name.clone(), source })
}

/// What somebody has changed, unless it is the root, which our own clones and snapshots change, or one of these.
fn changed(path: &std::path::Path, since: SystemTime) -> Result<Vec<String>, mounts::Error> {
    let found = strangers::changed_since(path, since)?;
    let inside = found.iter().filter_map(|found| found.strip_prefix(path).ok());
    let foreign = inside.filter(|inside| {
        inside.components().next().is_some_and(|first| !first.as_os_str().to_string_lossy().starts_with(OWN_PREFIX))
    });
    let mut names: Vec<_> =
        foreign.map(|inside| format!("somebody has changed {} meanwhile", inside.display())).collect();
    if names.len() > NAMED {
        let others = names.len() - NAMED;
        names.truncate(NAMED);
        names.push(format!("somebody has changed {others} more files meanwhile"));
    }
    Ok(names)
}
