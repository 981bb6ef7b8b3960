//! Why there is no backup.
//!
//! What merely degrades a backup is a `Problem` in its manifest; only what prevents it is an error.

use stillpoint_api::Problem;

/// A backup could not be taken; nothing of it exists.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server failed us.
    #[error(transparent)]
    Cluster(#[from] stillpoint_objects::Error),
    /// The repository failed us, or the name is taken.
    #[error(transparent)]
    Catalog(#[from] stillpoint_catalog::Error),
    /// The cluster's history was compacted below the revision in every attempt.
    #[error(
        "the API server compacted its history below the backup's revision in each of {attempts} attempts: \
         the backup takes longer than --etcd-compaction-interval allows; narrow its scope or lengthen the interval"
    )]
    RevisionLost {
        /// How many cuts were tried.
        attempts: u32,
    },
    /// Something is missing, and the request allows nothing to be.
    #[error("nothing was kept, because --strict allows nothing to be missing: {}", list(problems))]
    Strict {
        /// What is missing.
        problems: Vec<Problem>,
    },
    /// It was asked to end.
    #[error("the backup was cancelled; nothing of it is kept")]
    Cancelled,
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
