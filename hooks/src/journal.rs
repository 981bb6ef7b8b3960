//! What is stopped, on the node's disk: the memory that outlives a killed guard.
//!
//! One file a guard, locked for as long as any thread of the guard lives. So a lock that can be taken means that the
//! guard is gone *and* that no freeze of it is still under way; and removing a file needs no space on a full disk.
//!
//! ```text
//! {"boot":…,"guard":…,"caller":…,"targets":[{"kind":"freeze","device":"7:0",…}]}   intent, synced before anything stops
//! {"target":0,"is":"ours"}        it stands still because of us: written as soon as it does, synced beside the work
//! {"target":0,"is":"done"}        it was released
//! ```
//! Its space is reserved with the first line, so that the others cannot fail for want of it; when everything is done
//! the file is removed.

pub mod file;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, Sender},
    thread::{self, JoinHandle},
};

pub use file::Error;
use serde::{Deserialize, Serialize};

use crate::{guard::Kind, mounts::Device};

/// Where the journal is unless it is said otherwise.
pub const DEFAULT_FOLDER: &str = "/var/lib/stillpoint/journal";
/// What the notes of one target need at most.
const NOTES: u64 = 128;

/// What a guard is about to stop.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Intent {
    /// The boot that it was stopped in: nothing stays stopped over a restart of the machine.
    pub(crate) boot: String,
    /// The guard's process id.
    pub(crate) guard: u32,
    /// The caller's process id.
    pub(crate) caller: u32,
    pub(crate) targets: Vec<Target>,
}

/// One thing that is about to be stopped.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
}

/// How it is found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Identity {
    Filesystem { device: Device, kind: String, uuid: Option<String> },
    Cgroup { inode: u64 },
}

/// How far a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Is {
    /// It stands still because of us.
    Ours,
    /// It was released, or never stopped.
    Done,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Note {
    target: usize,
    is: Is,
}

/// The id of this boot.
pub(crate) fn boot() -> Result<String, Error> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(Error::Boot)?;
    Ok(id.trim().to_owned())
}

/// A journal being written: notes go to the disk on a thread of its own, in order.
#[derive(Debug)]
pub(crate) struct Journal {
    notes: Option<Sender<Note>>,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// Writes what is about to be stopped, and returns when it is on the disk.
    pub(crate) fn begin(folder: &Path, intent: &Intent) -> Result<Self, Error> {
        let (path, file) = file::create(folder, intent, intent.targets.len() as u64 * NOTES)?;
        let (notes, received) = mpsc::channel();
        let left = intent.targets.len();
        let writer = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write_notes(file, &path, left, &received))
            .map_err(|source| Error::File { path: folder.to_owned(), source })?;
        Ok(Self { notes: Some(notes), writer: Some(writer) })
    }

    /// Notes how far a target is, without waiting for the disk.
    pub(crate) fn note(&self, target: usize, is: Is) {
        if let Some(notes) = &self.notes {
            // the thread ends before its channel only by a panic; then the intent is what is left
            let _ = notes.send(Note { target, is });
        }
    }

    /// Waits until every note is on the disk, or the file is removed because everything is done.
    pub(crate) fn finish(mut self) {
        self.notes = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// A note that cannot be written changes nothing of what is released here and now: the intent stays on the disk.
fn write_notes(mut file: File, path: &Path, mut left: usize, notes: &Receiver<Note>) {
    while let Ok(note) = notes.recv() {
        let mut lines = Vec::new();
        for note in std::iter::once(note).chain(notes.try_iter()) {
            left = left.saturating_sub(usize::from(note.is == Is::Done));
            let _ = serde_json::to_writer(&mut lines, &note);
            lines.push(b'\n');
        }
        if left > 0 {
            let _ = file.write_all(&lines).and_then(|()| file.sync_data());
        } else {
            let _ = fs::remove_file(path);
        }
    }
}

/// A journal that was left, or whose guard lives.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) path: PathBuf,
    pub(crate) intent: Intent,
    /// What is not done yet: its number, and whether it is known to be ours.
    pub(crate) open: Vec<(usize, bool)>,
    /// Locked while this value lives; `None` while the guard, or a freeze of it, lives.
    pub(crate) lock: Option<File>,
}

/// Every journal in a folder. One that cannot be read does not hide the others.
pub(crate) fn left(folder: &Path) -> Result<Vec<Result<Left, Error>>, Error> {
    Ok(file::paths(folder)?.iter().filter_map(|path| read(path).transpose()).collect())
}

/// `None` when it was removed meanwhile.
pub(crate) fn read(path: &Path) -> Result<Option<Left>, Error> {
    let Some(file::Content { text, lock }) = file::read(path)? else { return Ok(None) };
    let (intent, open) = parse(&text).map_err(|source| Error::Damaged { path: path.to_owned(), source })?;
    Ok(Some(Left { path: path.to_owned(), intent, open, lock }))
}

/// The last note may be torn: then it was not synced, and what it says is not relied upon.
fn parse(text: &str) -> Result<(Intent, Vec<(usize, bool)>), serde_json::Error> {
    let mut lines = text.lines();
    let intent: Intent = serde_json::from_str(lines.next().unwrap_or_default())?;
    let mut states: Vec<Option<bool>> = vec![Some(false); intent.targets.len()];
    for note in lines.map_while(|line| serde_json::from_str::<Note>(line).ok()) {
        if let Some(state) = states.get_mut(note.target) {
            *state = (note.is == Is::Ours).then_some(true);
        }
    }
    let open = states.into_iter().enumerate().filter_map(|(number, ours)| Some((number, ours?)));
    Ok((intent, open.collect()))
}

impl Left {
    /// Removes the file: nothing of it is stopped any more.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(|source| Error::File { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(targets: usize) -> Intent {
        let identity = Identity::Cgroup { inode: 7 };
        let target = Target { kind: Kind::Pause, path: "/sys/fs/cgroup/a".into(), identity };
        Intent { boot: "boot".to_owned(), guard: 1, caller: 2, targets: vec![target; targets] }
    }

    fn only(folder: &Path) -> Option<Left> {
        let mut left = left(folder).unwrap();
        assert!(left.len() < 2);
        left.pop().map(Result::unwrap)
    }

    #[test]
    fn what_is_not_done_is_open_and_its_journal_locked_until_the_writer_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::begin(&folder.path().join("new"), &intent(3)).unwrap();
        let folder = folder.path().join("new");
        assert!(only(&folder).unwrap().lock.is_none());
        journal.note(1, Is::Ours);
        journal.note(2, Is::Done);
        journal.finish();
        let left = only(&folder).unwrap();
        assert!(left.lock.is_some());
        assert_eq!(left.open, [(0, false), (1, true)]);
    }

    #[test]
    fn the_journal_of_what_is_done_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::begin(folder.path(), &intent(2)).unwrap();
        journal.note(0, Is::Ours);
        journal.note(0, Is::Done);
        journal.note(1, Is::Done);
        journal.finish();
        assert!(only(folder.path()).is_none());
    }

    #[test]
    fn a_torn_note_is_as_if_it_were_not_there() {
        let mut text = serde_json::to_string(&intent(2)).unwrap();
        text.push_str("\n{\"target\":0,\"is\":\"ours\"}\n{\"target\":1,\"is\":\"do");
        assert_eq!(parse(&text).unwrap().1, [(0, true), (1, false)]);
    }

    #[test]
    fn what_is_no_journal_is_named_and_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        Journal::begin(folder.path(), &intent(1)).unwrap().finish();
        fs::write(folder.path().join("x.journal"), "{\"boot\":1}").unwrap();
        fs::write(folder.path().join("README"), "not a journal").unwrap();
        let left = left(folder.path()).unwrap();
        assert_eq!((left.len(), left.iter().filter(|left| left.is_err()).count()), (2, 1));
    }
}
