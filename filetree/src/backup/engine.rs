//! The threads of a backup, the queues between them, and how they end.
//!
//! Two queues: what the walk leaves to others, and pieces of large files. A thread that finds the second full works off a
//! piece itself, so nobody ever waits for a queue that only the waiting could empty.

use std::{
    collections::HashMap,
    num::NonZero,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use stillpoint_repository::{BlockingWriter, Buffers, Id, Node};
use tokio::sync::watch;

use super::{
    Error,
    clones::Clones,
    cut::{Cutter, MAX},
    directory::OpenDirectory,
    node::Names,
    parent::Parent,
    read::{FileTask, Piece, Readers, WINDOW},
    report::{Counts, LeftOut, Problem, Progress, Read},
    selection::Selection,
    walk,
};
use crate::lock;

/// Tasks that wait; each may keep a directory open.
const TASKS: usize = 128;

/// Windows that are used again: one a thread reads to, and those whose pieces wait.
const KEPT_WINDOWS: usize = 8;

/// What all threads of a backup share. Cheap to clone.
pub(super) struct Engine {
    pub(super) writer: BlockingWriter,
    pub(super) cutter: Cutter,
    pub(super) names: Names,
    /// Where large files are read to.
    pub(super) windows: Arc<Buffers>,
    state: Arc<State>,
    progress: watch::Sender<Progress>,
    problems: Mutex<Vec<Problem>>,
    left_out: Mutex<Vec<LeftOut>>,
    holes: Mutex<HashMap<usize, Id>>,
    root: OnceLock<Node>,
    tree: OnceLock<Id>,
}

/// Whether the work goes on.
#[derive(Default)]
struct State {
    stopped: AtomicBool,
    error: Mutex<Option<Error>>,
}

/// Stops the threads when it is dropped.
pub(super) struct StopWhenDropped(Arc<State>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

/// What the walk leaves to the reading threads.
pub(super) enum Task {
    /// A file is to be read.
    Read(FileTask),
    /// All that is in a directory was looked at. Where nothing has changed, storing directories is most of the work.
    Close(Arc<OpenDirectory>),
}

/// The ends of the queues that a reading thread holds.
pub(super) struct Queues {
    tasks: Receiver<Task>,
    pieces: Receiver<Piece>,
    pub(super) cut: Sender<Piece>,
}

impl Engine {
    pub(super) fn new(writer: BlockingWriter, seed: u64, progress: watch::Sender<Progress>) -> Self {
        Self {
            writer,
            cutter: Cutter::new(seed),
            names: Names::default(),
            windows: Buffers::new(WINDOW, KEPT_WINDOWS),
            state: Arc::default(),
            progress,
            problems: Mutex::default(),
            left_out: Mutex::default(),
            holes: Mutex::default(),
            root: OnceLock::new(),
            tree: OnceLock::new(),
        }
    }

    pub(super) fn stop_when_dropped(&self) -> StopWhenDropped {
        StopWhenDropped(self.state.clone())
    }

    /// Reads the selection into the repository, by way of clones if such are to be made. Blocks until all threads have
    /// ended.
    pub(super) fn run(
        self,
        selection: &Selection,
        parent: Option<Parent>,
        clones: Option<&Clones>,
    ) -> Result<Read, Error> {
        let threads = thread::available_parallelism().map_or(2, NonZero::get);
        let (tasks, waiting) = bounded(TASKS);
        let (cut, pieces) = bounded(threads);
        thread::scope(|scope| {
            for _ in 0..threads {
                let queues = Queues { tasks: waiting.clone(), pieces: pieces.clone(), cut: cut.clone() };
                scope.spawn(|| self.work(queues));
            }
            drop((waiting, pieces, cut));
            walk::walk(&self, selection, (parent.as_ref(), clones), tasks);
        });
        self.into_read()
    }

    /// Works off both queues until the walk has ended and nobody cuts any more.
    fn work(&self, queues: Queues) {
        let mut readers = Readers::default();
        loop {
            match queues.pieces.try_recv() {
                Ok(piece) => {
                    piece.store(self);
                    continue;
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
            crossbeam_channel::select! {
                recv(queues.pieces) -> piece => if let Ok(piece) = piece { piece.store(self) },
                recv(queues.tasks) -> task => match task {
                    Ok(Task::Read(file)) => file.read(self, &queues, &mut readers),
                    Ok(Task::Close(directory)) => directory.close(self),
                    Err(_) => break,
                },
            }
        }
        let Queues { pieces, cut, .. } = queues;
        drop(cut);
        pieces.iter().for_each(|piece| piece.store(self));
    }

    fn into_read(self) -> Result<Read, Error> {
        if let Some(error) = lock(&self.state.error).take() {
            return Err(error);
        }
        let Some(tree) = self.tree.into_inner() else { return Err(Error::Stopped) };
        let into_sorted = |problems: Mutex<Vec<Problem>>| {
            let mut problems = problems.into_inner().unwrap_or_else(PoisonError::into_inner);
            problems.sort();
            problems
        };
        let counts = *self.progress.borrow();
        let left_out = self.left_out.into_inner().unwrap_or_else(PoisonError::into_inner);
        let root = self.root.into_inner().map(|root| Node { subtree: Some(tree), ..root });
        Ok(Read { tree, root, counts, problems: into_sorted(self.problems), left_out })
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state.stopped.load(Ordering::Relaxed)
    }

    /// Ends the backup by its first error.
    pub(super) fn fail(&self, error: impl Into<Error>) {
        lock(&self.state.error).get_or_insert(error.into());
        self.state.stopped.store(true, Ordering::Relaxed);
    }

    /// Takes what the system says of the root, where that is a directory of its own.
    pub(super) fn take_root(&self, root: Node) {
        // the walk begins once
        let _ = self.root.set(root);
    }

    /// Takes the root's tree.
    pub(super) fn finish(&self, tree: Id) {
        // the root closes once
        let _ = self.tree.set(tree);
    }

    pub(super) fn problem(&self, problem: Problem) {
        lock(&self.problems).push(problem);
    }

    pub(super) fn leave_out(&self, mount: LeftOut) {
        lock(&self.left_out).push(mount);
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Counts)) {
        self.progress.send_modify(add);
    }

    /// Pieces that stand for a hole of `size` bytes: zeros, stored once for each length.
    pub(super) fn hole(&self, mut size: u64) -> Result<Vec<Id>, Error> {
        let mut pieces = Vec::new();
        let mut holes = lock(&self.holes);
        while size > 0 {
            let length = usize::try_from(size).map_or(MAX, |size| size.min(MAX));
            let piece = match holes.get(&length) {
                Some(piece) => *piece,
                None => *holes.entry(length).insert_entry(self.writer.data(&vec![0; length])?).get(),
            };
            pieces.push(piece);
            size -= length as u64;
        }
        Ok(pieces)
    }
}
