//! Walks the selected directories, depth first, and sends on what has to be read.
//!
//! One thread: looking at a file costs a microsecond, and one walker keeps the order in which files lie in packs close
//! to that of directories. The stack is a value of its own, so depth costs memory and not the thread's stack.

use std::{
    cell::RefCell,
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
    sync::Arc,
    vec,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use crossbeam_channel::Sender;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::{
    fs::{self, Dir, Mode, OFlags, Statx, StatxAttributes},
    io::Errno,
};
use stillpoint_repository::{Node, NodeKind, Tree};

use super::{
    Error,
    clones::Clones,
    directory::OpenDirectory,
    engine::{Engine, Task},
    node,
    parent::Parent,
    read::FileTask,
    report::{LeftOut, Problem, ProblemKind},
    selection::{Selection, Taken},
};

/// A directory that the walk is in.
struct Frame {
    directory: Arc<OpenDirectory>,
    fd: Arc<OwnedFd>,
    names: vec::IntoIter<OsString>,
    taken: Taken,
    old: Option<Tree>,
}

struct Walk<'a> {
    engine: &'a Engine,
    selection: &'a Selection,
    parent: Option<&'a Parent>,
    clones: Option<&'a Clones>,
    /// Files that were cloned, and are read once all are.
    cloned: RefCell<Vec<FileTask>>,
    tasks: Sender<Task>,
}

/// Walks the selection to its end, or until the engine is stopped.
pub(super) fn walk(
    engine: &Engine,
    selection: &Selection,
    (parent, clones): (Option<&Parent>, Option<&Clones>),
    tasks: Sender<Task>,
) {
    allow_many_open_files();
    let walk = Walk { engine, selection, parent, clones, cloned: RefCell::default(), tasks };
    if let Err(error) = walk.run() {
        engine.fail(Error::Path { path: PathBuf::from("/"), source: error.into() });
    }
    let Some(clones) = clones.filter(|_| !engine.is_stopped()) else { return };
    if !clones.wait() {
        return engine.fail(Error::Stopped);
    }
    for file in walk.cloned.take() {
        walk.leave(Task::Read(file));
    }
}

/// Each level of depth keeps a directory open. The limit that is usual, 1024, is for programs that use select(2).
fn allow_many_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // the old limit does for all but very deep directories, whose names are reported then
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

impl Walk<'_> {
    fn run(&self) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match &self.selection.root {
            Some(root) => {
                self.engine.take_root(self.root(root)?);
                // a descriptor of its own: where a directory is read is the open file's
                fs::openat(root, ".", flags, Mode::empty())?
            }
            None => fs::open("/", flags, Mode::empty())?,
        };
        let (taken, old) = (self.selection.taken.clone(), self.parent.and_then(Parent::root));
        let names = names(&fd, &taken)?;
        let root = Frame { directory: OpenDirectory::root(), fd: Arc::new(fd), names, taken, old };
        let mut frames = vec![root];
        while let Some(mut frame) = frames.pop() {
            if self.engine.is_stopped() {
                return Ok(());
            }
            let Some(name) = frame.names.next() else {
                self.leave(Task::Close(frame.directory));
                continue;
            };
            let below = self.visit(&frame, &name);
            frames.push(frame);
            frames.extend(below);
        }
        Ok(())
    }

    fn leave(&self, task: Task) {
        // nobody receives only after the engine was stopped
        let _ = self.tasks.send(task);
    }

    /// The node of the directory that is the root of all.
    fn root(&self, fd: &OwnedFd) -> Result<Node, Errno> {
        let mut node = self.node(OsStr::new("/"), std::path::Path::new("/"), &node::stat_open(fd)?);
        match node::attributes(fd) {
            Ok(attributes) => node.extended_attributes = attributes,
            Err(error) => self.engine.problem(attributes_missed(std::path::Path::new("/"), error)),
        }
        Ok(node)
    }

    /// Looks at an entry; a directory to walk into is given back.
    fn visit(&self, frame: &Frame, name: &OsStr) -> Option<Frame> {
        let path = frame.directory.path.join(name);
        let taken = frame.taken.entry(name);
        let was_asked_for = matches!(frame.taken, Taken::Only(_));
        if !was_asked_for && self.selection.excludes(&path) {
            return None;
        }
        let stat = match node::stat(&frame.fd, name) {
            Ok(stat) => stat,
            Err(error) => return self.missed(path, error),
        };
        if !was_asked_for && !self.selection.cross_mounts && is_mount(&stat) {
            self.leave_out(frame, name, path, &stat);
            return None;
        }
        match node::kind(&stat) {
            NodeKind::Dir => self.enter(frame, name, path, &stat, taken),
            NodeKind::File => self.file(frame, name, path, &stat),
            _ => self.special(frame, name, path, &stat),
        }
    }

    fn missed(&self, path: PathBuf, error: Errno) -> Option<Frame> {
        let kind = if error == Errno::NOENT { ProblemKind::Vanished } else { ProblemKind::Unreadable };
        self.engine.problem(Problem::new(&path, kind, reason(error)));
        None
    }

    /// A mount point stays as an empty directory, as `restic backup --one-file-system` leaves it.
    fn leave_out(&self, frame: &Frame, name: &OsStr, path: PathBuf, stat: &Statx) {
        self.engine.leave_out(LeftOut { path: path.display().to_string() });
        if node::kind(stat) == NodeKind::Dir {
            let node = self.node(name, &path, stat);
            frame.directory.below(path, node).close(self.engine);
        }
    }

    fn enter(&self, frame: &Frame, name: &OsStr, path: PathBuf, stat: &Statx, taken: Taken) -> Option<Frame> {
        self.engine.count(|counts| counts.directories += 1);
        let opened = open_directory(&frame.fd, name).and_then(|fd| Ok((names(&fd, &taken)?, fd)));
        let (names, fd) = match opened {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return self.missed(path, Errno::NOENT),
            Err(error) => {
                // what is in it is unknown; that it was there is not
                let node = self.node(name, &path, stat);
                frame.directory.below(path.clone(), node).close(self.engine);
                return self.missed(path, error);
            }
        };
        let mut node = self.node(name, &path, stat);
        match node::attributes(&fd) {
            Ok(attributes) => node.extended_attributes = attributes,
            Err(error) => self.engine.problem(attributes_missed(&path, error)),
        }
        let entry = frame.old.as_ref().and_then(|old| old.get(name));
        let old = self.parent.and_then(|parent| parent.directory(entry, stat));
        Some(Frame { directory: frame.directory.below(path, node), fd: Arc::new(fd), names, taken, old })
    }

    fn file(&self, frame: &Frame, name: &OsStr, path: PathBuf, stat: &Statx) -> Option<Frame> {
        let old = frame.old.as_ref().and_then(|old| old.get(name));
        if let (Some(parent), Some(old)) = (self.parent, old)
            && parent.is_unchanged(old, stat, &self.engine.writer)
        {
            let content = old.content.clone();
            let extended_attributes = old.extended_attributes.clone();
            frame.directory.add(Node { content, extended_attributes, ..self.node(name, &path, stat) });
            self.engine.count(|counts| {
                counts.files_unmodified += 1;
                counts.bytes += stat.stx_size;
            });
            return None;
        }
        self.engine.count(|counts| {
            counts.files_new += u64::from(old.is_none());
            counts.files_changed += u64::from(old.is_some());
            counts.bytes += stat.stx_size;
        });
        frame.directory.expect();
        let (directory, parent) = (frame.directory.clone(), frame.fd.clone());
        let file = FileTask { directory, parent, name: name.to_owned(), original: None };
        match self.clones {
            Some(clones) => self.cloned.borrow_mut().extend(file.clone_into(self.engine, clones)),
            None => self.leave(Task::Read(file)),
        }
        None
    }

    fn special(&self, frame: &Frame, name: &OsStr, path: PathBuf, stat: &Statx) -> Option<Frame> {
        let mut node = self.node(name, &path, stat);
        if node.kind == NodeKind::Symlink {
            match fs::readlinkat(&frame.fd, name, Vec::new()) {
                Ok(target) => set_target(&mut node, target.into_bytes()),
                Err(error) => return self.missed(path, error),
            }
        }
        match node::attributes_unopened(&frame.fd, name) {
            Ok(attributes) => node.extended_attributes = attributes,
            Err(error) => self.engine.problem(attributes_missed(&path, error)),
        }
        self.engine.count(|counts| counts.others += 1);
        frame.directory.add(node);
        None
    }

    fn node(&self, name: &OsStr, path: &std::path::Path, stat: &Statx) -> Node {
        let (node, replaced) = self.engine.names.node(name, stat);
        if replaced {
            self.engine.problem(Problem::new(path, ProblemKind::Attributes, BEYOND_THE_FORMAT));
        }
        node
    }
}

/// What is said of a time that the format has no words for.
pub(super) const BEYOND_THE_FORMAT: &str = "its time lies outside the years 0 to 9999 and is not kept";

/// restic writes a target that is no text lossily; newer versions add its bytes in base64.
fn set_target(node: &mut Node, target: Vec<u8>) {
    match String::from_utf8(target) {
        Ok(text) => node.linktarget = text,
        Err(error) => {
            node.linktarget = String::from_utf8_lossy(error.as_bytes()).into_owned();
            node.linktarget_raw = Some(BASE64_STANDARD.encode(error.as_bytes()));
        }
    }
}

pub(super) fn attributes_missed(path: &std::path::Path, error: Errno) -> Problem {
    Problem::new(path, ProblemKind::Attributes, format!("its extended attributes cannot be read: {}", reason(error)))
}

/// What the system says, in words.
pub(super) fn reason(error: Errno) -> String {
    std::io::Error::from(error).to_string()
}

/// Whether another file system, or another part of one, is mounted here; bind mounts too.
pub(super) fn is_mount(stat: &Statx) -> bool {
    stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

fn open_directory(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_quietly(parent, name, flags)
}

/// Opens without leaving a trace in the time of the last access, where that is permitted.
pub(super) fn open_quietly(parent: &OwnedFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    match fs::openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => fs::openat(parent, name, flags, Mode::empty()),
        other => other,
    }
}

/// Names in a directory that are taken, sorted.
fn names(fd: impl AsFd, taken: &Taken) -> Result<vec::IntoIter<OsString>, Errno> {
    if let Taken::Only(entries) = taken {
        return Ok(entries.keys().cloned().collect::<Vec<_>>().into_iter());
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable_by(|a: &OsString, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names.into_iter())
}
