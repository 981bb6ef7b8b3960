//! Why a restore test has no verdict.
//!
//! A damaged backup is a verdict and never an error: that is what the test is for. Errors are left for what says
//! nothing about the backup.

use std::{io, path::PathBuf};

use stillpoint_catalog as catalog;
use stillpoint_objects as objects;
use stillpoint_restore as restore;

use crate::scratch;

/// A restore test came to no verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such backup, or the repository cannot be read.
    #[error(transparent)]
    Backup(#[from] catalog::Error),
    /// The scratch cluster did not start.
    #[error(transparent)]
    Scratch(#[from] scratch::Error),
    /// The scratch cluster failed while it was in use.
    #[error("the scratch cluster failed during the restore test")]
    Cluster(#[from] objects::Error),
    /// The restore failed for a reason that says nothing about the backup.
    #[error("the restore into the scratch cluster broke off")]
    Restore(#[source] restore::Error),
    /// A volume could not be restored, for a reason that says nothing about the backup.
    #[error("the volume {volume} could not be restored to be looked at (--scratch-folder chooses where)")]
    Volume {
        /// The claim, as `namespace/name`.
        volume: String,
        /// Why.
        #[source]
        source: Box<stillpoint_filetree::restore::Error>,
    },
    /// The folder for restored volumes cannot be made or removed.
    #[error("the folder for restored volumes cannot be made in, or removed from, {}", folder.display())]
    Folder {
        /// Where.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A shell would read the folder's name in its own way.
    #[error(
        "{} has characters in its name that a check's shell would read in its own way: choose another with \
         --scratch-folder", folder.display()
    )]
    NotPlain {
        /// The folder.
        folder: PathBuf,
    },
    /// A thread of the test ended early.
    #[error("a thread of the restore test was stopped")]
    Stopped(#[source] tokio::task::JoinError),
    /// The test was cancelled.
    #[error("the restore test was cancelled: there is no verdict, and the scratch cluster is removed")]
    Cancelled,
}
