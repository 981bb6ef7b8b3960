//! Restores the volumes of a backup into a directory of this machine, judges them, and runs the user's checks.
//!
//! The directory lasts as long as the checks: a copy of production's data is not left lying about.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use stillpoint_catalog::Backup;
use stillpoint_filetree::restore::{Error as FileError, Progress as FileProgress};
use stillpoint_restore::{self as restore, volumes::Volume};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{
    Error, Progress,
    checks::{
        integrity::{damage_of, describe, is_damage},
        user::{self, UserCheck},
        volumes::Volumes,
    },
    record::Record,
    restore_test::TestRequest,
};

/// What a user wants of restored volumes.
#[derive(Debug, Clone)]
pub struct VolumeTests {
    /// Where volumes are restored, in a folder that is removed; none for the system's temporary folder.
    pub folder: Option<PathBuf>,
    /// Commands over restored volumes.
    pub checks: Vec<UserCheck>,
    /// How long one command may take.
    pub timeout: Duration,
}

impl Default for VolumeTests {
    fn default() -> Self {
        Self { folder: None, checks: Vec::new(), timeout: Duration::from_secs(300) }
    }
}

/// Restores and judges the volumes; how many seconds that took.
///
/// # Errors
/// What says nothing about the backup: a directory that cannot be written, a repository that fails, a cancellation.
pub(crate) async fn judge(
    record: &mut Record,
    backup: &Backup,
    request: &TestRequest,
    progress: &watch::Sender<Progress>,
) -> Result<f64, Error> {
    let holds_any = backup.manifest.volumes.iter().any(|volume| volume.data.held().is_some());
    let tests = &request.volumes;
    if !holds_any && tests.checks.is_empty() {
        return Ok(0.0);
    }
    let started = Instant::now();
    let folder = Folder::make(tests)?;
    let mut volumes = Volumes::default();
    let mut places = BTreeMap::new();
    match restore::volumes::of(backup).await {
        Ok(found) => {
            for volume in found {
                let target = folder.of(&volume);
                if restore_one(&mut volumes, backup, &volume, &target, request, progress).await? {
                    places.insert(volume.name().to_owned(), target);
                }
            }
        }
        Err(restore::Error::Backup(error)) => {
            let (subject, message) = describe(&damage_of(error)?);
            volumes.damaged(&subject, message);
        }
        Err(error) => return Err(Error::Restore(error)),
    }
    let seconds = started.elapsed().as_secs_f64();
    if holds_any {
        let (check, not_judged) = volumes.judge();
        record.add(check);
        record.0.not_judged.extend(not_judged);
    }
    if !tests.checks.is_empty() {
        progress.send_replace(Progress::Checking);
        let (tests, cancel) = (tests.clone(), request.cancel.clone());
        let run = move || user::run(&tests.checks, |volume| places.get(volume).cloned(), tests.timeout, &cancel);
        record.add(tokio::task::spawn_blocking(run).await.map_err(Error::Stopped)?);
    }
    folder.remove().await?;
    if request.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(seconds) }
}

/// Restores one volume; whether its directory is worth to be looked at.
async fn restore_one(
    volumes: &mut Volumes,
    backup: &Backup,
    volume: &Volume,
    target: &Path,
    request: &TestRequest,
    progress: &watch::Sender<Progress>,
) -> Result<bool, Error> {
    let (sender, mut receiver) = watch::channel(FileProgress::default());
    let forward = async {
        while receiver.changed().await.is_ok() {
            progress.send_replace(Progress::Volumes(*receiver.borrow_and_update()));
        }
    };
    // never dropped halfway: its threads would go on writing into a folder that is being removed
    let work = volume.restore(backup.reader(), target, sender, request.cancel.clone());
    let (restored, ()) = tokio::join!(Box::pin(work), forward);
    match restored {
        Ok(report) => {
            volumes.restored(volume.name(), &volume.record, &report);
            Ok(true)
        }
        Err(error) if says_something(&error) => {
            volumes.damaged(&format!("volume {}", volume.name()), error);
            Ok(false)
        }
        Err(FileError::Interrupted { .. }) => Err(Error::Cancelled),
        Err(source) => Err(Error::Volume { volume: volume.name().to_owned(), source: Box::new(source) }),
    }
}

/// Whether the error is one about the backup.
fn says_something(error: &FileError) -> bool {
    match error {
        FileError::TooLarge { .. } => true,
        FileError::Repository(error) => is_damage(error),
        _ => false,
    }
}

/// The folder that volumes are restored into.
struct Folder(TempDir);

impl Folder {
    fn make(tests: &VolumeTests) -> Result<Self, Error> {
        let place = tests.folder.clone().unwrap_or_else(std::env::temp_dir);
        let make = || TempDir::with_prefix_in("stillpoint-verify-", std::fs::canonicalize(&place)?);
        let made = make().map_err(|source| Error::Folder { folder: place, source })?;
        if !tests.checks.is_empty() && !user::is_plain(made.path()) {
            return Err(Error::NotPlain { folder: made.path().to_owned() });
        }
        Ok(Self(made))
    }

    fn of(&self, volume: &Volume) -> PathBuf {
        self.0.path().join(&volume.record.namespace).join(&volume.record.claim)
    }

    /// Removes it; dropping does too, but tells nobody.
    async fn remove(self) -> Result<(), Error> {
        let folder = self.0.path().to_owned();
        let removed = tokio::task::spawn_blocking(move || self.0.close()).await.map_err(Error::Stopped)?;
        removed.map_err(|source| Error::Folder { folder, source })
    }
}
