//! Backs up real directories and has our own reader say what was stored.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use futures::TryStreamExt;
use stillpoint_filetree::{
    backup::{self, Counts, Error, ProblemKind, Report, Request},
    volume::{self, HostFilter},
};
use stillpoint_repository::{Kdf, Node, Password, Repository, Store};
use tokio::sync::watch;

const MIB: u64 = 1 << 20;

/// A directory to back up and a repository in memory.
struct Lab {
    folder: tempfile::TempDir,
    repository: Repository,
}

impl Lab {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository =
            Repository::init(Store::memory(), &Password::new("test"), Kdf::fast_for_tests()).await.unwrap();
        Self { folder, repository }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn request(&self) -> Request {
        Request::new("data", "host", vec![self.path("")])
    }

    async fn backup(&self) -> Report {
        self.backup_as(&self.request()).await.unwrap()
    }

    async fn backup_as(&self, request: &Request) -> Result<Report, Error> {
        backup::backup(&self.repository, request, watch::Sender::default()).await
    }

    /// The node of a file below the directory, in the newest backup.
    async fn node(&self, name: &str) -> Option<Node> {
        let backup = volume::find(&self.repository, "data", &HostFilter::Any, None).await.unwrap();
        let path = self.path(name);
        self.repository.reader().await.unwrap().find(&backup.tree, path.to_str().unwrap()).await.unwrap()
    }

    async fn content(&self, name: &str) -> Vec<u8> {
        let node = self.node(name).await.unwrap();
        let pieces: Vec<_> =
            self.repository.reader().await.unwrap().content(&node).unwrap().try_collect().await.unwrap();
        pieces.concat()
    }
}

/// Waits until what was written before counts as written well before what follows.
async fn outwait_the_grain() {
    let until = SystemTime::now() + Duration::from_millis(2_050);
    while let Ok(left) = until.duration_since(SystemTime::now()) {
        tokio::time::sleep(left).await;
    }
}

fn noise(size: u64, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(usize::try_from(size).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_comes_back_whatever_its_size() {
    let lab = Lab::new().await;
    let sizes = [0, 1, 4096, MIB / 2, MIB / 2 + 1, 4 * MIB, 8 * MIB, 8 * MIB + 1, 21 * MIB + 7];
    for size in sizes {
        lab.write(&format!("deep/{size}"), &noise(size, size));
    }
    let report = lab.backup().await;
    assert_eq!(report.problems, []);
    assert_eq!((report.counts.files_new, report.counts.bytes), (sizes.len() as u64, sizes.iter().sum()));
    for size in sizes {
        assert!(lab.content(&format!("deep/{size}")).await == noise(size, size), "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_is_not_read_again() {
    let lab = Lab::new().await;
    lab.write("a/kept", b"kept");
    lab.write("a/large", &noise(3 * MIB, 1));
    lab.write("b/changed", b"before");
    outwait_the_grain().await;
    let first = lab.backup().await;
    assert_eq!(first.counts.files_new, 3);

    let again = lab.backup().await;
    assert_eq!((again.counts.files_unmodified, again.counts.bytes_read), (3, 0));
    assert_eq!(again.parent, Some(first.snapshot));

    lab.write("b/changed", b"after!");
    lab.write("b/new", b"new");
    let counts = lab.backup().await.counts;
    assert_eq!((counts.files_new, counts.files_changed, counts.files_unmodified, counts.bytes_read), (1, 1, 2, 9));
    assert_eq!(lab.content("b/changed").await, b"after!");
    assert!(lab.content("a/large").await == noise(3 * MIB, 1));

    let all = lab.backup_as(&Request { read_all: true, ..lab.request() }).await.unwrap();
    assert_eq!((all.counts.bytes_read, all.parent), (3 * MIB + 13, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_within_the_grain_of_a_clock_before_the_parent_is_read_again() {
    let lab = Lab::new().await;
    lab.write("file", b"one");
    lab.backup().await;
    let again = lab.backup().await;
    assert_eq!((again.counts.files_unmodified, again.counts.bytes_read), (0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_of_the_same_size_and_time_is_read() {
    let lab = Lab::new().await;
    lab.write("file", b"one");
    let time = fs::metadata(lab.path("file")).unwrap().modified().unwrap();
    outwait_the_grain().await;
    lab.backup().await;
    lab.write("other", b"two");
    fs::File::open(lab.path("other")).unwrap().set_modified(time).unwrap();
    fs::rename(lab.path("other"), lab.path("file")).unwrap();
    lab.backup().await;
    assert_eq!(lab.content("file").await, b"two");
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_are_stored_for_nothing_and_not_read() {
    const END: u64 = 20 << 30;
    let lab = Lab::new().await;
    let mut file = fs::File::create(lab.path("sparse")).unwrap();
    file.write_all(&noise(MIB, 1)).unwrap();
    file.seek(SeekFrom::Start(END)).unwrap();
    file.write_all(b"end").unwrap();
    file.set_len(END + 10 * MIB).unwrap();
    drop(file);
    let allocated = fs::metadata(lab.path("sparse")).unwrap().blocks() * 512;
    assert!(allocated < 16 * MIB, "the file system below {} keeps no holes", lab.path("").display());
    let report = lab.backup().await;
    assert_eq!(report.problems, []);
    assert!(report.stats.bytes_new < 16 * MIB, "{} bytes were stored", report.stats.bytes_new);
    let Counts { bytes, bytes_read, .. } = report.counts;
    assert_eq!(bytes, END + 10 * MIB);
    assert!((MIB..2 * MIB).contains(&bytes_read), "{bytes_read} bytes were read");

    let node = lab.node("sparse").await.unwrap();
    assert_eq!(node.size, END + 10 * MIB);
    let zeros = node.content.as_ref().unwrap().iter().max_by_key(|id| count(&node, id)).unwrap();
    assert!(count(&node, zeros) > 5000, "the holes are one piece, many times");
    let reader = lab.repository.reader().await.unwrap();
    let others =
        Node { content: Some(node.content.iter().flatten().filter(|id| *id != zeros).copied().collect()), ..node };
    let mut kept = Vec::new();
    for id in others.content.iter().flatten() {
        kept.extend_from_slice(&reader.blob(id).await.unwrap());
    }
    assert!(kept.starts_with(&noise(MIB, 1)));
    let rest: Vec<_> = kept.iter().skip(1 << 20).copied().filter(|byte| *byte != 0).collect();
    assert_eq!(rest, b"end");
}

fn count(node: &Node, id: &stillpoint_repository::Id) -> usize {
    node.content.iter().flatten().filter(|other| *other == id).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_while_it_is_read_is_named_and_kept() {
    let lab = Lab::new().await;
    lab.write("busy", &noise(64 * MIB, 1));
    lab.write("quiet", b"quiet");
    let mut file = fs::OpenOptions::new().append(true).open(lab.path("busy")).unwrap();
    let (done, runtime) = (AtomicBool::new(false), tokio::runtime::Handle::current());
    let report = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    file.write_all(&[7; 4096]).unwrap();
                }
            });
            let report = runtime.block_on(lab.backup());
            done.store(true, Ordering::Relaxed);
            report
        })
    });
    let [problem] = &report.problems[..] else { panic!("one problem expected: {:?}", report.problems) };
    assert_eq!((problem.kind, problem.path.as_str()), (ProblemKind::Changed, lab.path("busy").to_str().unwrap()));
    assert!(lab.content("busy").await.starts_with(&noise(64 * MIB, 1)));
    let written_down = backup::problems::read(&lab.repository, &report.tree).await.unwrap();
    assert_eq!(written_down, Some(report.problems));
    let again = lab.backup().await;
    assert_eq!(again.problems, []);
    assert_eq!(lab.content("busy").await.len() as u64, fs::metadata(lab.path("busy")).unwrap().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_asked_for_is_stored_with_the_directories_above_it() {
    let lab = Lab::new().await;
    for name in ["one/a", "two/b", "two/skip.log", "two/cache/c", "three/d"] {
        lab.write(name, name.as_bytes());
    }
    symlink("nowhere \u{fffd}", lab.path("one/link")).unwrap();
    let paths = vec![lab.path("one"), lab.path("two")];
    let exclude = vec!["*.log".into(), "cache".into()];
    let report = lab.backup_as(&Request { paths, exclude, ..lab.request() }).await.unwrap();
    assert_eq!((report.counts.files_new, report.counts.others), (2, 1));
    for (name, there) in
        [("one/a", true), ("two/b", true), ("two/skip.log", false), ("two/cache", false), ("three", false)]
    {
        assert_eq!(lab.node(name).await.is_some(), there, "{name}");
    }
    assert_eq!(lab.node("one/link").await.unwrap().linktarget, "nowhere \u{fffd}");
    let above = lab.node("").await.unwrap();
    let metadata = fs::metadata(lab.path("")).unwrap();
    assert_eq!((above.inode, above.uid), (metadata.ino(), metadata.uid()));
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_of_any_depth_are_walked() {
    use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
    /// More than files may be open by default, and than a path may be long.
    const DEPTH: u64 = 2500;
    let lab = Lab::new().await;
    let mut at = open(lab.path(""), OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let report = lab.backup().await;
    assert_eq!(report.problems, []);
    assert!(report.counts.directories >= DEPTH);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_and_leaves_no_lock() {
    let lab = Lab::new().await;
    for name in ["", "a,b", "stillpoint-volume"] {
        let refused = lab.backup_as(&Request { name: name.into(), ..lab.request() }).await;
        assert!(matches!(refused, Err(Error::Name { .. })), "{name:?}");
    }
    let refused = lab.backup_as(&Request { paths: vec![lab.path("absent")], ..lab.request() }).await;
    assert!(matches!(refused, Err(Error::Path { .. })));
    let cancelled = lab.request();
    cancelled.cancel.cancel();
    lab.write("large", &noise(64 * MIB, 1));
    assert!(matches!(lab.backup_as(&cancelled).await, Err(Error::Stopped)));
    assert_eq!(volume::list(&lab.repository).await.unwrap(), []);

    let report = lab.backup().await;
    // refused while anybody holds a lock
    lab.repository.forget(&report.snapshot).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_directory_costs_its_names_only() {
    let lab = Lab::new().await;
    lab.write("old/file", &noise(4 * MIB, 1));
    lab.write("old/below/file", b"below");
    outwait_the_grain().await;
    lab.backup().await;
    fs::rename(lab.path("old"), lab.path("new")).unwrap();
    let report = lab.backup().await;
    assert_eq!(report.counts.bytes_read, 0, "nothing is read");
    assert!(report.stats.bytes_new < 10_000, "{}", report.stats.bytes_new);
    assert!(lab.content("new/file").await == noise(4 * MIB, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_inside_a_large_file_costs_the_pieces_around_it() {
    let lab = Lab::new().await;
    lab.write("large", &noise(32 * MIB, 1));
    lab.backup().await;
    fs::OpenOptions::new().write(true).open(lab.path("large")).unwrap().write_all_at(b"changed", 9 * MIB).unwrap();
    let report = lab.backup().await;
    assert!(report.stats.bytes_new < 9 * MIB, "{}", report.stats.bytes_new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_below_is_left_out_by_name_unless_told() {
    let Some(()) = stillpoint_test_support::require::root() else { return };
    let lab = Lab::new().await;
    lab.write("mnt/hidden", b"below the mount");
    let _mounted = Mounted::tmpfs(&lab.path("mnt"));
    lab.write("mnt/on-mount", b"on the mount");
    lab.write("beside", b"beside");

    let report = lab.backup().await;
    let left_out: Vec<_> = report.left_out.iter().map(|mount| mount.path.clone()).collect();
    assert_eq!(left_out, [lab.path("mnt").to_str().unwrap()]);
    assert!(lab.node("mnt").await.is_some() && lab.node("mnt/on-mount").await.is_none());

    let crossed = lab.backup_as(&Request { cross_mounts: true, ..lab.request() }).await.unwrap();
    assert_eq!(crossed.left_out, []);
    assert_eq!(lab.content("mnt/on-mount").await, b"on the mount");

    let asked = lab.backup_as(&Request { paths: vec![lab.path("mnt")], ..lab.request() }).await.unwrap();
    assert_eq!((asked.counts.files_new, asked.left_out.len()), (1, 0), "a mount that was asked for is no crossing");
}

/// A file system that is unmounted when the test ends, whatever becomes of it.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path) -> Self {
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(at).status().unwrap();
        assert!(mounted.success());
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
