//! Gathers what a selection holds: one level of directories at a time, in the order in which it lies in the repository.
//!
//! What a tree says wrongly is found here, before it can do harm.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::TryStreamExt;
use jiff::Timestamp;
use stillpoint_repository::{Id, Node, NodeKind, Reader, Tree, permissions};

use super::{
    Counts, Error,
    entries::{Attributes, Entries, Entry, Extended, Kind, Number, ROOT},
    plan::RootAttributes,
    problem::{ProblemKind, Problems},
    target::MARKER,
};
use crate::selection::{Selected, Selection};

/// Entries at most, about 5 GB: a tree may name one directory many times, and so claim more than there is.
const MAX_ENTRIES: usize = 20_000_000;
/// Blobs of all files at most, about 5 GB and 50 TiB of content; a file may name one blob many times too.
const MAX_BLOBS: usize = 50_000_000;
/// Directories inside each other at most.
const MAX_DEPTH: usize = 10_000;

/// The entries of a selection while they are gathered.
pub(super) struct Gathered {
    pub(super) entries: Entries,
    pub(super) root: RootAttributes,
    pub(super) counts: Counts,
    pub(super) problems: Problems,
}

/// Reads everything below a selection.
pub(super) async fn gather(reader: &Reader, selection: &Selection) -> Result<Gathered, Error> {
    let mut gatherer = Gatherer::new(reader, selection)?;
    let mut level: Vec<(Id, Number)> = selection.tree().map(|tree| (tree, ROOT)).into_iter().collect();
    for _ in 0..MAX_DEPTH {
        if level.is_empty() {
            return Ok(gatherer.gathered);
        }
        let wanted: Vec<Id> = level.iter().map(|(tree, _)| *tree).collect();
        level.sort_unstable();
        let mut below = Vec::new();
        let mut trees = reader.trees(wanted);
        while let Some((id, tree)) = trees.try_next().await? {
            let from = level.partition_point(|(tree, _)| *tree < id);
            for (_, directory) in level[from..].iter().take_while(|(tree, _)| *tree == id) {
                match &tree {
                    Ok(tree) => gatherer.add_tree(*directory, tree, &mut below)?,
                    Err(error) => gatherer.problem(*directory, None, ProblemKind::Directory, error),
                }
            }
        }
        level = below;
    }
    Err(Error::TooLarge { what: "directories inside each other", limit: MAX_DEPTH })
}

struct Gatherer<'a> {
    reader: &'a Reader,
    gathered: Gathered,
    /// The first name of every file that has several, by device and inode.
    linked: HashMap<(u64, u64), (Number, LinkedTo)>,
}

/// What two names of one file must have in common.
#[derive(PartialEq, Eq)]
struct LinkedTo {
    kind: NodeKind,
    content: Option<Id>,
}

impl<'a> Gatherer<'a> {
    fn new(reader: &'a Reader, selection: &Selection) -> Result<Self, Error> {
        let (root, attributes) = match &selection.what {
            Selected::Node(node) if node.kind == NodeKind::Dir => (RootAttributes::Restored, Attributes::of(node)),
            _ => (RootAttributes::Kept, Ok(Attributes::none())),
        };
        let gathered =
            Gathered { entries: Entries::default(), root, counts: Counts::default(), problems: Problems::default() };
        let mut gatherer = Self { reader, gathered, linked: HashMap::new() };
        let (attributes, problem) = match attributes {
            Ok(attributes) => (attributes, None),
            Err((attributes, problem)) => (attributes, Some(problem)),
        };
        gatherer.push(OsStr::new(""), Entry::new(ROOT, Kind::Directory, attributes))?;
        if let Some(problem) = problem {
            gatherer.problem(ROOT, None, ProblemKind::Attribute, problem);
        }
        if let Selected::Node(node) = &selection.what
            && node.kind != NodeKind::Dir
        {
            gatherer.add_node(ROOT, node, &mut Vec::new())?;
        }
        Ok(gatherer)
    }

    fn add_tree(&mut self, directory: Number, tree: &Tree, below: &mut Vec<(Id, Number)>) -> Result<(), Error> {
        for node in tree.nodes() {
            if directory == ROOT && node.name == MARKER {
                self.problem(ROOT, Some(&node.name), ProblemKind::Missing, "the name is the marker's of a restore");
                continue;
            }
            self.add_node(directory, node, below)?;
        }
        Ok(())
    }

    fn add_node(&mut self, parent: Number, node: &Node, below: &mut Vec<(Id, Number)>) -> Result<(), Error> {
        if let Some(kind) = self.link(parent, node) {
            return self.push(&node.name, Entry::new(parent, kind, Attributes::none())).map(drop);
        }
        let kind = match self.kind(node)? {
            Ok(kind) => kind,
            Err(reason) => {
                self.problem(parent, Some(&node.name), ProblemKind::Missing, reason);
                return Ok(());
            }
        };
        let (attributes, problem) = match Attributes::of(node) {
            Ok(attributes) => (attributes, None),
            Err((attributes, problem)) => (attributes, Some(problem)),
        };
        let number = self.push(&node.name, Entry::new(parent, kind, attributes))?;
        if let Some(problem) = problem {
            self.problem(number, None, ProblemKind::Attribute, problem);
        }
        self.check_size(number, node);
        if node.links > 1 && node.kind != NodeKind::Dir && node.inode > 0 {
            self.linked.entry((node.device_id, node.inode)).or_insert_with(|| (number, LinkedTo::of(node)));
        }
        match (node.kind, node.subtree) {
            (NodeKind::Dir, Some(tree)) => below.push((tree, number)),
            (NodeKind::Dir, None) => self.problem(number, None, ProblemKind::Directory, "it names no tree"),
            _ => {}
        }
        Ok(())
    }

    /// Whether a node is a further name of a file that was met before.
    fn link(&mut self, parent: Number, node: &Node) -> Option<Kind> {
        if node.links < 2 || node.kind == NodeKind::Dir || node.inode == 0 {
            return None;
        }
        let (first, linked) = self.linked.get(&(node.device_id, node.inode))?;
        if *linked == LinkedTo::of(node) {
            return Some(Kind::Link(*first));
        }
        let first = self.gathered.entries.path(*first);
        let reason = format!("it was a hard link to {}, and they hold different things", first.display());
        self.problem(parent, Some(&node.name), ProblemKind::Link, reason);
        None
    }

    fn kind(&mut self, node: &Node) -> Result<Result<Kind, String>, Error> {
        Ok(Ok(match node.kind {
            NodeKind::Dir => Kind::Directory,
            NodeKind::File => return self.content(node),
            NodeKind::Symlink => match target(node) {
                Some(target) => Kind::Symlink(target.into()),
                None => return Ok(Err("the target of the link is not readable".into())),
            },
            NodeKind::Dev => Kind::BlockDevice(node.device),
            NodeKind::CharDev => Kind::CharDevice(node.device),
            NodeKind::Fifo => Kind::Fifo,
            NodeKind::Socket => Kind::Socket,
            NodeKind::Irregular => return Ok(Err("its kind is unknown".into())),
        }))
    }

    fn content(&mut self, node: &Node) -> Result<Result<Kind, String>, Error> {
        let too_large = Error::TooLarge { what: "blobs", limit: MAX_BLOBS };
        let ids = node.content.as_deref().unwrap_or_default();
        if self.gathered.entries.blobs() + ids.len() > MAX_BLOBS {
            return Err(too_large);
        }
        let mut blobs = Vec::with_capacity(ids.len());
        for id in ids {
            match self.reader.blob_length(id) {
                Some(length) => blobs.push((*id, length)),
                None => return Ok(Err(format!("its blob {} is in no index", id.short()))),
            }
        }
        let content = self.gathered.entries.content(blobs).ok_or(too_large)?;
        Ok(Ok(Kind::File(content)))
    }

    fn check_size(&mut self, number: Number, node: &Node) {
        let Kind::File(content) = &self.gathered.entries.get(number).kind else { return };
        if content.size != node.size {
            let reason = format!("its blobs have {} bytes, and it should have {}", content.size, node.size);
            self.problem(number, None, ProblemKind::Content, reason);
        }
    }

    fn push(&mut self, name: &OsStr, entry: Entry) -> Result<Number, Error> {
        let too_large = Error::TooLarge { what: "files", limit: MAX_ENTRIES };
        if self.gathered.entries.len() >= MAX_ENTRIES {
            return Err(too_large);
        }
        self.gathered.counts.add(&entry.kind);
        self.gathered.entries.push(name, entry).ok_or(too_large)
    }

    fn problem(&mut self, at: Number, name: Option<&OsString>, kind: ProblemKind, what: impl std::fmt::Display) {
        let path = match name {
            Some(name) if at == ROOT => PathBuf::from(name),
            Some(name) => self.gathered.entries.path(at).join(name),
            None => self.gathered.entries.path(at),
        };
        self.gathered.problems.add(path, kind, what);
    }
}

impl LinkedTo {
    fn of(node: &Node) -> Self {
        let content = match node.kind {
            NodeKind::File => {
                let ids = node.content.iter().flatten().flat_map(|id| id.0);
                Some(Id::of(&ids.collect::<Vec<_>>()))
            }
            NodeKind::Symlink => target(node).map(|target| Id::of(&target.into_vec())),
            _ => Some(Id::of(&node.device.to_le_bytes())),
        };
        Self { kind: node.kind, content }
    }
}

/// The target of a symbolic link; restic keeps one that is not UTF-8 in a field of its own.
fn target(node: &Node) -> Option<OsString> {
    match &node.linktarget_raw {
        None => Some(OsString::from(&node.linktarget)),
        Some(raw) => Some(OsString::from_vec(STANDARD.decode(raw).ok()?)),
    }
}

impl Attributes {
    /// What a node records; with a message if some of it is not readable.
    fn of(node: &Node) -> Result<Self, (Self, String)> {
        let mut unreadable = None;
        let mut extended = Vec::with_capacity(node.extended_attributes.len());
        for attribute in &node.extended_attributes {
            match STANDARD.decode(attribute.value.as_deref().unwrap_or_default()) {
                Ok(value) => extended.push(Extended { name: attribute.name.as_str().into(), value: value.into() }),
                Err(error) => unreadable = Some(format!("{}: {error}", attribute.name)),
            }
        }
        let attributes = Self {
            mode: permissions(node.mode),
            uid: node.uid,
            gid: node.gid,
            accessed: node.atime,
            modified: node.mtime,
            extended: extended.into(),
        };
        match unreadable {
            None => Ok(attributes),
            Some(reason) => Err((attributes, reason)),
        }
    }

    /// Of a name that has none of its own.
    fn none() -> Self {
        let time = Timestamp::UNIX_EPOCH;
        Self { mode: 0, uid: 0, gid: 0, accessed: time, modified: time, extended: Box::default() }
    }
}
