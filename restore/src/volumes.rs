//! The volumes of a backup, restored into directories.
//!
//! Where the directory comes from is the caller's business: a restore test makes one, a pod that fills a claim is given
//! one. What a volume is called in messages and in the marker of an interrupted restore is decided here.

use std::path::{Path, PathBuf};

use stillpoint_api::{VolumeRecord, manifest::VOLUMES_FOLDER};
use stillpoint_catalog::Backup;
use stillpoint_filetree::{
    restore::{self, Plan, Progress, Report},
    selection::{Selected, Selection},
    volume::VolumeBackup,
};
use stillpoint_repository::{Id, Node, Reader};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// A volume whose data a backup holds.
#[derive(Debug, Clone)]
pub struct Volume {
    /// What the manifest says of it.
    pub record: VolumeRecord,
    node: Node,
    within: VolumeBackup,
}

/// The volumes whose data the backup holds.
///
/// # Errors
/// The backup is damaged, or the repository cannot be read.
pub async fn of(backup: &Backup) -> Result<Vec<Volume>, Error> {
    let found = backup.volumes().await?;
    Ok(found.into_iter().map(|(record, node)| Volume::new(backup, record, node)).collect())
}

impl Volume {
    fn new(backup: &Backup, record: VolumeRecord, node: Node) -> Self {
        let manifest = &backup.manifest;
        let within = VolumeBackup {
            name: format!("{}/{}", record.namespace, record.claim),
            snapshot: backup.snapshot,
            time: manifest.cut.read_at,
            host: manifest.cluster.name.clone(),
            paths: vec![format!("/{VOLUMES_FOLDER}/{}/{}", record.namespace, record.claim)],
            tree: record.data.held().map_or(Id([0; 32]), |held| Id(held.tree.0)),
            degraded: record.data.held().is_some_and(|held| held.unread > 0),
            files: record.data.held().map(|held| held.files),
            bytes: record.data.held().map(|held| held.bytes),
        };
        Self { record, node, within }
    }

    /// The claim, as `namespace/name`.
    pub fn name(&self) -> &str {
        &self.within.name
    }

    /// Plans to restore it into a directory, whose owner, permissions and times become those of the volume's root.
    ///
    /// # Errors
    /// The directory is taken, or the repository cannot be read.
    pub async fn plan(&self, reader: &Reader, target: &Path) -> Result<Plan, restore::Error> {
        let path = PathBuf::from(&self.within.paths[0]);
        let selection = Selection { path, what: Selected::Node(Box::new(self.node.clone())) };
        restore::plan(reader, &self.within, &selection, target).await
    }

    /// Restores it into a directory and reads every file back.
    ///
    /// # Errors
    /// The directory cannot be written, the repository cannot be read, or `cancel`; damage is no error but a problem of
    /// the report.
    pub async fn restore(
        &self,
        reader: &Reader,
        target: &Path,
        progress: watch::Sender<Progress>,
        cancel: CancellationToken,
    ) -> Result<Report, restore::Error> {
        restore::apply(reader, self.plan(reader, target).await?, true, progress, cancel).await
    }
}
