//! Reads a backup for the checks that need no cluster.
//!
//! Two passes: references may point forward to anything, so all names must be known before the first is judged. Objects
//! are dropped as soon as they are looked at; what stays is a fingerprint of each.

use futures::{StreamExt, TryStreamExt, stream};
use stillpoint_catalog::{self as catalog, Backup, ObjectFile};
use stillpoint_objects::sanitise::{Mapping, Sanitised, sanitise};
use tokio::sync::watch;

use crate::{
    Error, Progress,
    checks::{
        counts::{Counts, FileCounts},
        integrity::{Integrity, damage_of},
        references::{References, Referred},
    },
    held::{Fingerprint, Held, Keys},
};

/// Files that are read at once.
const CONCURRENCY: usize = 4;

/// What the first pass has seen.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) files: Vec<ObjectFile>,
    pub(crate) integrity: Integrity,
    pub(crate) counts: Counts,
    pub(crate) held: Held,
}

/// Reads every byte of the backup.
///
/// # Errors
/// The repository fails; damage is no error.
pub(crate) async fn read(backup: &Backup, progress: &watch::Sender<Progress>) -> Result<Contents, Error> {
    progress.send_replace(Progress::Reading { objects: 0 });
    let mut contents = Contents::default();
    let keys = Keys::default();
    contents.held = Held::new(keys.clone());
    let files = match backup.files().await {
        Ok(files) => files,
        Err(error) => {
            contents.integrity.damaged(&damage_of(error)?);
            return Ok(contents);
        }
    };
    {
        let surveys = stream::iter(&files).map(|file| Survey::take(backup, file, &keys, progress));
        let mut surveys = surveys.buffer_unordered(CONCURRENCY);
        while let Some(survey) = surveys.try_next().await? {
            contents.integrity.extend(survey.integrity);
            contents.counts.add(survey.counts);
            contents.held.extend(survey.fingerprints);
        }
    }
    contents.files = files;
    Ok(contents)
}

/// Looks up what every object refers to.
///
/// # Errors
/// The repository fails, or the manifest's scope cannot be read.
pub(crate) async fn refer(
    backup: &Backup,
    contents: &Contents,
    progress: &watch::Sender<Progress>,
) -> Result<Referred, Error> {
    let mut references = References::new(&backup.manifest, &contents.held)?;
    let mut seen = 0;
    for file in &contents.files {
        let mut objects = backup.objects(file)?;
        while let Some(object) = objects.next().await? {
            // an object that is no value is named when it is restored; what is never restored needs nothing
            if let Ok(value) = object.value(&file.resource)
                && let Sanitised::Create(_) = sanitise(&file.resource, value.clone(), &Mapping::default())
            {
                references.object(&file.resource, &file.object(&object.name), &value);
            }
            seen += 1;
            progress.send_replace(Progress::Referring { objects: seen });
        }
    }
    Ok(references.judge())
}

/// What one file holds.
struct Survey<'a> {
    integrity: Integrity,
    counts: FileCounts<'a>,
    fingerprints: Vec<Fingerprint>,
}

impl<'a> Survey<'a> {
    /// Reads a file to its end or to where it is damaged.
    async fn take(
        backup: &Backup,
        file: &'a ObjectFile,
        keys: &Keys,
        progress: &watch::Sender<Progress>,
    ) -> Result<Self, Error> {
        let counts = FileCounts::new(&file.resource, file.namespace.as_deref(), &file.path);
        let mut survey = Self { integrity: Integrity::default(), counts, fingerprints: Vec::new() };
        match survey.read(backup, file, keys, progress).await {
            Ok(()) => survey.integrity.files += 1,
            Err(error) => survey.integrity.damaged(&damage_of(error)?),
        }
        Ok(survey)
    }

    async fn read(
        &mut self,
        backup: &Backup,
        file: &ObjectFile,
        keys: &Keys,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), catalog::Error> {
        let mut objects = backup.objects(file)?;
        while let Some(object) = objects.next().await? {
            self.counts.object(&object.name, &object.raw);
            self.fingerprints.push(keys.name(&file.resource.name, file.namespace.as_deref(), &object.name));
            self.fingerprints.push(keys.uid(&object.uid));
            self.integrity.objects += 1;
            progress.send_modify(Progress::read_one);
        }
        Ok(())
    }
}
