//! Why a restore test has no verdict.
//!
//! A damaged backup is a verdict and never an error: that is what the test is for. Errors are left for what says
//! nothing about the backup.

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
    /// The test was cancelled.
    #[error("the restore test was cancelled: there is no verdict, and the scratch cluster is removed")]
    Cancelled,
}
