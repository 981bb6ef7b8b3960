//! The posts that are owed, on a disk: what outlives the death of the process that runs hooks.
//!
//! One file a pod that is being brought to rest, locked for as long as its hooks run. So a lock that can be taken means
//! that the process is gone, and what the file names is owed: [`super::run::owed`] runs it.
//!
//! ```text
//! {"cluster":…,"pod":{…},"posts":[{"container":…,"hook":{…}}]}    synced before the pod's first pre hook or hold starts
//! {"done":"post.2"}                                               synced when that post has run
//! ```
//! With the last post the file is removed.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{plan::Step, pod::PodId};
use crate::journal::file::{self, Error};

/// Where an agent keeps it unless it is said otherwise.
pub const DEFAULT_FOLDER: &str = "/var/lib/stillpoint/hooks";

/// What the note of one post needs at most.
const NOTE: u64 = 256;

/// Where owed posts are written down, and of which cluster.
#[derive(Debug, Clone)]
pub struct Journal {
    folder: PathBuf,
    cluster: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    cluster: String,
    pod: PodId,
    posts: Vec<Step>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    done: String,
}

/// The posts of a pod that are owed, locked by this process.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) pod: PodId,
    pub(super) posts: Vec<Step>,
    pub(super) entry: Entry,
}

/// The file of one pod.
#[derive(Debug)]
pub(super) struct Entry {
    path: PathBuf,
    notes: File,
    _lock: File,
    open: BTreeSet<String>,
}

impl Journal {
    /// A journal in `folder`; `cluster` tells the pods of one cluster from those of another.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, cluster: impl Into<String>) -> Self {
        Self { folder: folder.into(), cluster: cluster.into() }
    }

    /// Writes down what is owed once a hook of `pod` is started, and returns when it is on the disk.
    pub(super) fn begin(&self, pod: PodId, posts: Vec<Step>) -> Result<Entry, Error> {
        let open = names(&posts);
        let first = First { cluster: self.cluster.clone(), pod, posts };
        let (path, lock) = file::create(&self.folder, &first, open.len() as u64 * NOTE)?;
        Entry::new(path, lock, open)
    }

    /// What processes that are gone owe to pods of this cluster. A file that cannot be read does not hide the others.
    pub(super) fn owed(&self) -> Result<Vec<Result<Owed, Error>>, Error> {
        let each = file::paths(&self.folder)?.into_iter().filter_map(|path| read(path).transpose());
        Ok(each
            .filter_map(|read| match read {
                Ok((cluster, owed)) => (cluster == self.cluster).then_some(Ok(owed)),
                Err(error) => Some(Err(error)),
            })
            .collect())
    }
}

/// `None` where its process lives.
fn read(path: PathBuf) -> Result<Option<(String, Owed)>, Error> {
    let Some(file::Content { text, lock: Some(lock) }) = file::read(&path)? else { return Ok(None) };
    let (First { cluster, pod, mut posts }, done) = match parse(&text) {
        Ok(parsed) => parsed,
        Err(source) => return Err(Error::Damaged { path, source }),
    };
    posts.retain(|step| !done.contains(&step.hook.name));
    let entry = Entry::new(path, lock, names(&posts))?;
    Ok(Some((cluster, Owed { pod, posts, entry })))
}

/// A torn note was not synced: its post runs once more.
fn parse(text: &str) -> Result<(First, BTreeSet<String>), serde_json::Error> {
    let mut lines = text.lines();
    let first = serde_json::from_str(lines.next().unwrap_or_default())?;
    let notes = lines.filter_map(|line| serde_json::from_str::<Note>(line).ok());
    Ok((first, notes.map(|note| note.done).collect()))
}

fn names(posts: &[Step]) -> BTreeSet<String> {
    posts.iter().map(|step| step.hook.name.clone()).collect()
}

impl Entry {
    fn new(path: PathBuf, lock: File, open: BTreeSet<String>) -> Result<Self, Error> {
        let notes = File::options().append(true).open(&path);
        match notes {
            Ok(notes) => Ok(Self { path, notes, _lock: lock, open }),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// Notes that a post is not owed any more; with the last one the file is removed.
    pub(super) fn done(&mut self, post: &str) -> Result<(), Error> {
        self.open.remove(post);
        let noted = if self.open.is_empty() { fs::remove_file(&self.path) } else { note(&mut self.notes, post) };
        noted.map_err(|source| Error::File { path: self.path.clone(), source })
    }
}

fn note(file: &mut File, post: &str) -> std::io::Result<()> {
    // after a torn line, too
    let line = format!("\n{}\n", serde_json::to_string(&Note { done: post.to_owned() })?);
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::model::{Hook, Kind, Source};

    fn pod() -> PodId {
        PodId { namespace: "shop".into(), name: "db-0".into(), uid: Some("u".into()) }
    }

    fn posts<const N: usize>(names: [&str; N]) -> Vec<Step> {
        let hook = |name| Hook::new(name, Kind::Post, Source::Stillpoint, vec!["/x".into()]);
        names.map(|name| Step { container: "db".into(), hook: hook(name) }).into()
    }

    #[test]
    fn what_is_not_done_is_owed_once_its_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().join("new"), "a");
        let mut entry = journal.begin(pod(), posts(["post.1", "post.2"])).unwrap();
        assert!(journal.owed().unwrap().is_empty(), "its process lives");
        entry.done("post.2").unwrap();
        drop(entry);
        assert!(Journal::new(folder.path().join("new"), "b").owed().unwrap().is_empty(), "another cluster");
        let mut owed = journal.owed().unwrap().remove(0).unwrap();
        assert_eq!((owed.pod, owed.posts), (pod(), posts(["post.1"])));
        assert!(journal.owed().unwrap().is_empty(), "somebody else runs it");
        owed.entry.done("post.1").unwrap();
        assert!(!owed.entry.path.exists());
    }

    #[test]
    fn a_torn_note_leaves_its_post_owed_and_what_is_no_journal_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "a");
        let mut entry = journal.begin(pod(), posts(["post.1", "post.2"])).unwrap();
        entry.notes.write_all(b"{\"done\":\"post.").unwrap();
        drop(entry);
        fs::write(folder.path().join("x.journal"), "{}").unwrap();
        let (owed, damaged): (Vec<_>, Vec<_>) = journal.owed().unwrap().into_iter().partition(Result::is_ok);
        assert_eq!((owed.len(), damaged.len()), (1, 1));
        assert_eq!(owed.into_iter().next().unwrap().unwrap().posts.len(), 2);
    }

    #[test]
    fn a_hook_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "a");
        let mut step = posts(["post"]).remove(0);
        step.hook = Hook { order: -3, number: 7, container: Some("c".into()), ..step.hook };
        step.hook.timeout = std::time::Duration::from_millis(1500);
        drop(journal.begin(pod(), vec![step.clone()]).unwrap());
        assert_eq!(journal.owed().unwrap().remove(0).unwrap().posts, [step]);
    }
}
