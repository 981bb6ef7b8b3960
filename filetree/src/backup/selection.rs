//! Which files a backup takes: the paths that were asked for, less what patterns leave out.
//!
//! The paths become one tree from the root, because that is how restic lays out a snapshot: the directories above a
//! path are in it too, with nothing else in them.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::Error;

/// What of our own lies in a volume has names that begin so: clones and snapshots of it.
pub const OWN_PREFIX: &str = ".stillpoint-";

/// What of a directory is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// All of it.
    Whole,
    /// These entries.
    Only(BTreeMap<OsString, Taken>),
}

/// Which files a backup takes.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub(super) taken: Taken,
    pub(super) cross_mounts: bool,
    paths: Vec<PathBuf>,
    exclude: GlobSet,
    /// The directory that is the root of all; the host's, if none is given.
    pub(super) root: Option<Arc<OwnedFd>>,
}

impl Selection {
    /// Resolves the paths, symbolic links included, against this host.
    pub(super) fn new(paths: &[PathBuf], exclude: &[String], cross_mounts: bool) -> Result<Self, Error> {
        let resolve =
            |path: &PathBuf| std::fs::canonicalize(path).map_err(|source| Error::Path { path: path.clone(), source });
        let mut paths = paths.iter().map(resolve).collect::<Result<Vec<_>, _>>()?;
        if paths.is_empty() {
            return Err(Error::NoPaths);
        }
        paths.sort();
        let mut taken = Taken::Only(BTreeMap::new());
        for path in &paths {
            taken.add(path);
        }
        paths.dedup_by(|later, earlier| later.starts_with(&*earlier));
        Ok(Self { taken, cross_mounts, paths, exclude: globs(exclude)?, root: None })
    }

    /// All that is in an opened directory, which becomes the root: patterns that begin with a slash begin there.
    pub(super) fn of_directory(directory: OwnedFd, exclude: &[String]) -> Result<Self, Error> {
        let (exclude, root) = (globs(exclude)?, Some(Arc::new(directory)));
        Ok(Self { taken: Taken::Whole, cross_mounts: false, paths: Vec::new(), exclude, root })
    }

    /// The paths as the snapshot names them.
    pub(super) fn paths(&self) -> Vec<String> {
        self.paths.iter().map(|path| path.display().to_string()).collect()
    }

    pub(super) fn excludes(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let is_own =
            self.root.is_some() && name.starts_with(OWN_PREFIX.as_bytes()) && path.parent() == Some("/".as_ref());
        is_own || (!self.exclude.is_empty() && self.exclude.is_match(path))
    }
}

impl Taken {
    fn add(&mut self, path: &Path) {
        let mut place = self;
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        for name in names {
            let Self::Only(entries) = place else { return };
            place = entries.entry(name.to_owned()).or_insert_with(|| Self::Only(BTreeMap::new()));
        }
        *place = Self::Whole;
    }

    /// What of an entry is taken.
    pub(super) fn entry(&self, name: &OsStr) -> Self {
        match self {
            Self::Whole => Self::Whole,
            Self::Only(entries) => entries.get(name).cloned().unwrap_or(Self::Whole),
        }
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, Error> {
    let wrong = |pattern: &str, error: &globset::Error| Error::Pattern {
        pattern: pattern.to_owned(),
        reason: error.kind().to_string(),
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let anchored = if pattern.starts_with('/') { pattern.clone() } else { format!("**/{pattern}") };
        let glob = GlobBuilder::new(anchored.trim_end_matches('/')).literal_separator(true).build();
        set.add(glob.map_err(|error| wrong(pattern, &error))?);
    }
    set.build().map_err(|error| wrong(&patterns.join(", "), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_one_tree_and_one_inside_another_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["a/b", "c"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        let paths = [root.join("a/b"), root.join("link"), root.join("c/")];
        let selection = Selection::new(&paths, &[], false).unwrap();
        assert_eq!(selection.paths(), [root.join("a"), root.join("c")].map(|path| path.display().to_string()));
        let mut taken = selection.taken;
        for component in root.components().skip(1) {
            taken = taken.entry(component.as_os_str());
        }
        let Taken::Only(entries) = &taken else { panic!("the folder is not taken whole") };
        assert_eq!(entries.len(), 2);
        assert!(entries.values().all(|entry| *entry == Taken::Whole));
    }

    #[test]
    fn patterns_match_ends_of_paths_or_whole_ones() {
        let folder = tempfile::tempdir().unwrap();
        let patterns = ["*.log", "cache/tmp", "/srv/data/old/", "/srv/*/x"].map(String::from);
        let selection = Selection::new(&[folder.path().to_owned()], &patterns, false).unwrap();
        for (path, excluded) in [
            ("/srv/data/a.log", true),
            ("/srv/data/a.log.1", false),
            ("/srv/cache/tmp", true),
            ("/srv/cache/tmp2", false),
            ("/srv/data/old", true),
            ("/mnt/srv/data/old", false),
            ("/srv/one/x", true),
            ("/srv/one/two/x", false),
        ] {
            assert_eq!(selection.excludes(Path::new(path)), excluded, "{path}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let missing = Selection::new(&["/no/such/path".into()], &[], false).unwrap_err();
        assert!(missing.to_string().starts_with("cannot back up /no/such/path: "), "{missing}");
        assert!(matches!(Selection::new(&[], &[], false), Err(Error::NoPaths)));
        let pattern = Selection::new(&["/".into()], &["a[".into()], false).unwrap_err();
        assert!(pattern.to_string().starts_with("\"a[\" is no pattern: "), "{pattern}");
    }
}
