//! Reads one opened directory as a tree of its own, and hangs such trees into that of a host.
//!
//! For whoever commits snapshots of another shape: what is a volume is known by a descriptor, and where its tree goes is
//! none of its reader's business.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use stillpoint_repository::{BlockingWriter, Id, LocalTrees, Node, NodeKind, Repository, Tree, Writer};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Progress, Read,
    clones::{Clones, Cloning},
    engine::Engine,
    node::{self, Names},
    parent::{Parent, Trees, Trust},
    precopy::Earlier,
    run,
    selection::Selection,
    stats::Stats,
};

/// What to read.
#[derive(Debug)]
pub struct Request {
    /// The directory. Excluded patterns that begin with a slash begin there.
    pub directory: OwnedFd,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// An earlier copy whose unchanged files are not read.
    pub earlier: Option<Earlier>,
    /// Its trees, where they were fetched; else the repository is asked for them on the way.
    pub fetched: Option<Arc<LocalTrees>>,
    /// Ends the work early.
    pub cancel: CancellationToken,
}

/// Reads a directory into the repository; the caller commits its tree.
///
/// # Errors
/// [`Error`] says what kept it from being read at all; what the tree lacks is in what is returned.
pub async fn read(
    repository: &Repository,
    writer: &Writer,
    request: Request,
    progress: watch::Sender<Progress>,
) -> Result<Read, Error> {
    let Request { directory, exclude, earlier, fetched, cancel } = request;
    let selection = Selection::of_directory(directory, &exclude)?;
    let parent = earlier.map(|earlier| parent(writer, earlier, fetched));
    progress.send_replace(Progress::default());
    let engine = Engine::new(writer.threads(), repository.chunker_seed(), progress);
    run(engine, selection, parent, &cancel).await
}

/// Starts to take a directory by clones of its files in `folder`, an empty one on the same filesystem; the caller removes
/// the folder at the end.
///
/// # Errors
/// [`Error::Pattern`].
pub fn clone(
    repository: &Repository,
    writer: &Writer,
    request: Request,
    folder: OwnedFd,
    progress: watch::Sender<Progress>,
) -> Result<Cloning, Error> {
    let Request { directory, exclude, earlier, fetched, cancel: _ } = request;
    let selection = Selection::of_directory(directory, &exclude)?;
    let parent = earlier.map(|earlier| parent(writer, earlier, fetched));
    progress.send_replace(Progress::default());
    let engine = Engine::new(writer.threads(), repository.chunker_seed(), progress);
    let (clones, taken, go) = Clones::new(folder);
    Ok(Cloning::start(engine, move |engine| engine.run(&selection, parent, Some(&clones)), (taken, go)))
}

fn parent(writer: &Writer, Earlier { tree, stopped }: Earlier, fetched: Option<Arc<LocalTrees>>) -> Parent {
    let ask = || Trees::Repository(Box::new(writer.reader()), Handle::current());
    let trees = fetched.map_or_else(ask, Trees::Local);
    Parent::new(trees, tree, stopped, Trust::Before(stopped))
}

/// Bytes of all files of a directory without those in holes, in one look at all of them without reading any. Blocks.
///
/// # Errors
/// [`Error::Path`] if the directory cannot be read.
pub fn size(directory: impl AsFd) -> Result<u64, Error> {
    let directory = directory.as_fd().try_clone_to_owned().map_err(|source| at(Path::new("/"), source))?;
    let selection = Selection::of_directory(directory, &[])?;
    let stats = Stats::take(&selection, &AtomicBool::new(false)).map_err(|error| at(Path::new("/"), error.into()))?;
    stats.map(|stats| stats.bytes()).ok_or(Error::Stopped)
}

/// Hangs directories, each under its path on this host, into one tree of the host, as a backup of paths has it: the
/// directories above are in it with nothing else in them.
///
/// # Errors
/// [`Error::Path`] if a directory above cannot be looked at; otherwise those of writing.
///
/// # Assumptions
/// The paths are absolute and resolved, and none lies in another.
pub async fn hang(writer: &Writer, directories: Vec<(PathBuf, Node)>) -> Result<Id, Error> {
    let mut root = Place::default();
    for (path, node) in directories {
        root.add(&path, node);
    }
    let writer = writer.threads();
    let stored = tokio::task::spawn_blocking(move || root.store(Path::new("/"), &Names::default(), &writer));
    stored.await.map_err(|_| Error::Stopped)?
}

/// A directory of the host's tree: one that was read, or one above.
#[derive(Default)]
struct Place {
    read: Option<Node>,
    below: BTreeMap<OsString, Place>,
}

impl Place {
    fn add(&mut self, path: &Path, node: Node) {
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let place = names.fold(self, |place, name| place.below.entry(name.to_owned()).or_default());
        place.read = Some(node);
    }

    /// Stores the tree of this directory, whose depth is that of a path.
    fn store(self, path: &Path, names: &Names, writer: &BlockingWriter) -> Result<Id, Error> {
        if let Some(tree) = self.read.and_then(|node| node.subtree) {
            return Ok(tree);
        }
        let mut nodes = Vec::new();
        for (name, mut place) in self.below {
            let path = path.join(&name);
            let read = place.read.take();
            nodes.push(match read {
                Some(node) => Node { name, ..node },
                None => Node { subtree: Some(place.store(&path, names, writer)?), ..above(&path, &name, names)? },
            });
        }
        Ok(writer.tree(&Tree::new(nodes)?)?)
    }
}

/// The node of a directory above one that was read.
fn above(path: &Path, name: &OsStr, names: &Names) -> Result<Node, Error> {
    let directory = File::open(path).map_err(|source| at(path, source))?;
    let stat = node::stat_open(&directory).map_err(|error| at(path, error.into()))?;
    if node::kind(&stat) != NodeKind::Dir {
        return Err(at(path, std::io::ErrorKind::NotADirectory.into()));
    }
    let extended_attributes = node::attributes(&directory).map_err(|error| at(path, error.into()))?;
    Ok(Node { extended_attributes, ..names.node(name, &stat).0 })
}

fn at(path: &Path, source: std::io::Error) -> Error {
    Error::Path { path: path.to_owned(), source }
}
