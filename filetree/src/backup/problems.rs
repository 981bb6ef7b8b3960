//! Keeps what a backup lacks beside it, for whoever restores it later.
//!
//! A sidecar of the tree, because a tree has its id before the snapshot is written: without the list there must be no
//! degraded backup. A copy made by restic leaves sidecars behind; the snapshot's tag still says that something is missing.

use stillpoint_repository::{Error, Id, Repository};

use super::Problem;

fn path(tree: &Id) -> String {
    format!("volumes/{tree}")
}

/// Writes down the problems of a tree that is about to be committed.
pub(super) async fn record(repository: &Repository, tree: &Id, problems: &[Problem]) -> Result<(), Error> {
    let json = serde_json::to_vec(problems)
        .map_err(|error| Error::Invalid { what: "the list of problems".into(), reason: error.to_string() })?;
    repository.put_sidecar(&path(tree), &json).await
}

/// The problems of a degraded backup by its tree; `None` where none were written down.
///
/// # Errors
/// [`Error::Damaged`] if the list cannot be read.
pub async fn read(repository: &Repository, tree: &Id) -> Result<Option<Vec<Problem>>, Error> {
    let path = path(tree);
    let json = match repository.get_sidecar(&path).await {
        Err(error) if error.is_missing() => return Ok(None),
        other => other?,
    };
    let problems = serde_json::from_slice(&json);
    problems.map(Some).map_err(|error| Error::Damaged { path, reason: error.to_string() })
}
