//! Finds what a path means inside a volume backup.
//!
//! restic's trees hold the whole way from `/`, but a volume is thought of as the directory that was backed up. So with
//! one backed-up path everything is relative to it, with several to `/`; an absolute path is the host's in both.

use std::{
    ffi::OsStr,
    path::{Component, Path, PathBuf},
};

use stillpoint_repository::{Id, Node, NodeKind, Reader};

use crate::volume::VolumeBackup;

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backup holds no such path.
    #[error("backup {snapshot} of the volume {name:?} holds no {}; volume ls shows what it holds", path.display())]
    Absent {
        /// First digits of the snapshot's id.
        snapshot: String,
        /// The volume's name.
        name: String,
        /// The path, from `/`.
        path: PathBuf,
    },
    /// The path leads upwards.
    #[error("the path {} leads upwards; name what is meant without ..", path.display())]
    Upwards {
        /// The path as given.
        path: PathBuf,
    },
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] stillpoint_repository::Error),
}

/// A part of a volume backup.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Its path on the host that was backed up.
    pub path: PathBuf,
    /// What it is.
    pub what: Selected,
}

/// What a selected path leads to.
#[derive(Debug, Clone)]
pub enum Selected {
    /// `/` itself, of which a snapshot records no more than the tree.
    Root(Id),
    /// A node with its metadata.
    Node(Box<Node>),
}

impl Selection {
    /// The tree of a directory; `None` for anything else.
    pub fn tree(&self) -> Option<Id> {
        match &self.what {
            Selected::Root(tree) => Some(*tree),
            Selected::Node(node) if node.kind == NodeKind::Dir => node.subtree,
            Selected::Node(_) => None,
        }
    }
}

/// Finds a path in a backup; without one, what was backed up.
///
/// # Errors
/// [`Error::Absent`] and [`Error::Upwards`].
pub async fn select(reader: &Reader, backup: &VolumeBackup, path: Option<&Path>) -> Result<Selection, Error> {
    let path = absolute(&backup.paths, path)?;
    let absent = || {
        let (snapshot, name) = (backup.snapshot.short(), backup.name.clone());
        Error::Absent { snapshot, name, path: path.clone() }
    };
    let mut what = Selected::Root(backup.tree);
    for part in parts(&path) {
        let tree = Selection { path: PathBuf::new(), what }.tree().ok_or_else(absent)?;
        let node = reader.tree(&tree).await?.get(part).cloned().ok_or_else(absent)?;
        what = Selected::Node(Box::new(node));
    }
    Ok(Selection { path, what })
}

/// The path from `/` that is meant.
fn absolute(backed_up: &[String], path: Option<&Path>) -> Result<PathBuf, Error> {
    let base = match backed_up {
        [one] => Path::new("/").join(one),
        _ => PathBuf::from("/"),
    };
    let joined = base.join(path.unwrap_or(Path::new("")));
    if joined.components().any(|part| part == Component::ParentDir) {
        return Err(Error::Upwards { path: path.unwrap_or(&joined).to_owned() });
    }
    Ok(joined.components().collect())
}

fn parts(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(backed_up: &[&str], path: Option<&str>) -> Option<String> {
        let backed_up: Vec<_> = backed_up.iter().map(ToString::to_string).collect();
        let path = absolute(&backed_up, path.map(Path::new)).ok()?;
        Some(path.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_path_is_relative_to_the_one_that_was_backed_up_and_to_the_root_of_several() {
        assert_eq!(meant(&["/srv/data"], None).unwrap(), "/srv/data");
        assert_eq!(meant(&["/srv/data"], Some("a/./b/")).unwrap(), "/srv/data/a/b");
        assert_eq!(meant(&["/srv/data"], Some("/srv")).unwrap(), "/srv");
        assert_eq!(meant(&["/srv/data", "/etc"], None).unwrap(), "/");
        assert_eq!(meant(&["/srv/data", "/etc"], Some("etc/x")).unwrap(), "/etc/x");
        assert_eq!(meant(&["/srv/data"], Some("../other")), None);
    }
}
