//! Copies a directory in passes.
//!
//! Nobody writes while it is read, but for one write that a drain must wait for; busy writers are met elsewhere.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    cell::RefCell,
    convert::Infallible,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use common::{commit, init, wait_for_old_stamps};
use futures::TryStreamExt;
use stillpoint_filetree::backup::{
    Read,
    precopy::{Earlier, Precopy, Request},
};
use stillpoint_repository::{Node, Reader, Repository, Writer};
use stillpoint_test_support::{loop_mount::LoopMount, require};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn request(source: &Path, spool: &Path) -> Request {
    Request {
        directory: fs::File::open(source).unwrap().into(),
        exclude: Vec::new(),
        earlier: None,
        budget: Duration::from_secs(2),
        spool: spool.to_owned(),
        cancel: CancellationToken::new(),
    }
}

fn precopy(repository: &Repository, writer: &Writer, request: Request) -> Precopy {
    Precopy::new(repository, writer, request, watch::Sender::default()).unwrap()
}

async fn content(reader: &Reader, read: &Read, path: &str) -> Option<Vec<u8>> {
    let node: Node = reader.find(&read.tree, path).await.unwrap()?;
    Some(reader.content(&node).unwrap().try_collect::<Vec<_>>().await.unwrap().concat())
}

async fn drain() -> Result<(), Infallible> {
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_holds_what_the_directory_is_by_then_and_reads_only_what_changed() {
    let (source, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| source.path().join(name);
    fs::create_dir_all(at("sub/deep")).unwrap();
    for name in ["kept", "sub/changed", "sub/deep/moved", "removed", ".stillpoint-clone-1"] {
        fs::write(at(name), vec![b'x'; 100_000]).unwrap();
    }
    let repository = init(&store.path().join("repository")).await;
    let writer = repository.writer().await.unwrap();
    let mut precopy = precopy(&repository, &writer, request(source.path(), store.path()));
    wait_for_old_stamps();
    let forecast = precopy.converge(drain).await.unwrap();
    assert_eq!((forecast.passes, forecast.files, forecast.within_budget), (1, 0, true), "{forecast:?}");
    let before = precopy.bytes_read();
    assert_eq!(before, 400_000);

    fs::write(at("sub/changed"), "changed").unwrap();
    fs::rename(at("sub/deep/moved"), at("sub/here")).unwrap();
    fs::remove_file(at("removed")).unwrap();
    fs::write(at("new"), "new").unwrap();
    let read = precopy.window().await.unwrap();
    assert!(read.problems.is_empty(), "{:?}", read.problems);
    // a renamed file may be read again, one that is as it was may not
    let again = precopy.bytes_read() - before;
    assert!([10, 100_010].contains(&again), "{again}");
    writer.send_packs().await.unwrap();
    commit(writer, read.tree).await;
    let reader = repository.reader().await.unwrap();
    for (path, expected) in [
        ("kept", Some(vec![b'x'; 100_000])),
        ("sub/changed", Some(b"changed".to_vec())),
        ("sub/here", Some(vec![b'x'; 100_000])),
        ("sub/deep/moved", None),
        ("removed", None),
        ("new", Some(b"new".to_vec())),
        (".stillpoint-clone-1", None),
    ] {
        assert!(content(&reader, &read, path).await == expected, "{path}");
    }
    let root = read.root.unwrap();
    assert_eq!(root.subtree, Some(read.tree));
    assert_eq!(root.uid, std::os::unix::fs::MetadataExt::uid(&source.path().metadata().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_copy_spares_reading_what_has_not_changed_since() {
    let (source, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for number in 0..50 {
        fs::write(source.path().join(number.to_string()), vec![number; 10_000]).unwrap();
    }
    wait_for_old_stamps();
    let repository = init(&store.path().join("repository")).await;
    let mut earlier = None;
    for expected in [500_000, 0] {
        let writer = repository.writer().await.unwrap();
        let stopped = jiff::Timestamp::now();
        let mut precopy = precopy(&repository, &writer, Request { earlier, ..request(source.path(), store.path()) });
        precopy.converge(drain).await.unwrap();
        let read = precopy.window().await.unwrap();
        assert_eq!((precopy.bytes_read(), read.counts.files_unmodified), (expected, 50));
        commit(writer, read.tree).await;
        earlier = Some(Earlier { tree: read.tree, stopped });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_large_files_all_the_time_is_told_that_it_does_not_converge() {
    let (source, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(source.path().join("large"), vec![1; 8 << 20]).unwrap();
    let repository = init(&store.path().join("repository")).await;
    let writer = repository.writer().await.unwrap();
    let budget = Duration::from_millis(20);
    let mut precopy = precopy(&repository, &writer, Request { budget, ..request(source.path(), store.path()) });
    // each drain is followed by a change
    let change = async || {
        fs::write(source.path().join("large"), vec![2; 8 << 20]).unwrap();
        Ok::<_, Infallible>(())
    };
    let forecast = precopy.converge(change).await.unwrap();
    assert!(!forecast.within_budget && forecast.window > budget, "{forecast:?}");
    assert_eq!((forecast.files, forecast.bytes), (1, 8 << 20));
    assert!(forecast.passes <= 3, "{forecast:?}");
    writer.abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_cancelled_ends_in_every_step() {
    let (source, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(source.path().join("file"), "x").unwrap();
    let repository = init(&store.path().join("repository")).await;
    let writer = repository.writer().await.unwrap();
    let asked = request(source.path(), store.path());
    let cancel = asked.cancel.clone();
    let mut precopy = precopy(&repository, &writer, asked);
    precopy.converge(drain).await.unwrap();
    cancel.cancel();
    assert!(precopy.window().await.is_err());
    assert!(precopy.converge(drain).await.is_err());
    writer.abandon().await;
}

/// A write() that has begun and stands still in the kernel.
struct Stalled {
    process: Child,
    says: BufReader<ChildStdout>,
}

impl Stalled {
    fn start(file: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", include_str!("common/stalled.py")]).arg(file);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let says = BufReader::new(process.stdout.take().unwrap());
        let mut stalled = Self { process, says };
        assert_eq!(stalled.line(), "stalled");
        stalled
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn let_go(&mut self) {
        self.process.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert_eq!(self.line(), "written");
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn freeze(mount: &Path, how: &str) -> Child {
    Command::new("fsfreeze").arg(how).arg(mount).spawn().unwrap()
}

/// Freezes and thaws; the freeze waits for the write, which is let go once it does.
fn freeze_and_thaw(mount: &Path, stalled: &mut Stalled) {
    let mut freezing = freeze(mount, "-f");
    let (status, deadline) = (format!("/proc/{}/stat", freezing.id()), Instant::now() + Duration::from_secs(20));
    while !fs::read_to_string(&status).unwrap().contains(") D ") {
        assert!(Instant::now() < deadline && freezing.try_wait().unwrap().is_none(), "the freeze does not wait");
    }
    stalled.let_go();
    assert!(freezing.wait().unwrap().success());
    assert!(freeze(mount, "-u").wait().unwrap().success());
}

/// Copies a file to which a write has begun and is not in yet; whether the copy holds it.
async fn holds_the_stalled_write(kind: &str, drains: bool) -> bool {
    let (mount, store) = (LoopMount::new(kind), tempfile::tempdir().unwrap());
    let file = mount.path().join("file");
    fs::write(&file, vec![b'o'; 4096]).unwrap();
    let stalled = RefCell::new(Stalled::start(&file));
    wait_for_old_stamps();
    let repository = init(&store.path().join("repository")).await;
    let writer = repository.writer().await.unwrap();
    let mut precopy = precopy(&repository, &writer, request(&mount.path(), store.path()));
    let end_writes = async || {
        if drains {
            freeze_and_thaw(&mount.path(), &mut stalled.borrow_mut());
        } else {
            assert!(Command::new("sync").arg("-f").arg(&file).status().unwrap().success());
        }
        Ok::<_, Infallible>(())
    };
    let forecast = precopy.converge(end_writes).await.unwrap();
    assert_eq!((forecast.passes, forecast.files), (1, 0), "{forecast:?}");
    if !drains {
        stalled.borrow_mut().let_go();
    }
    assert_eq!(fs::read(&file).unwrap(), vec![b'n'; 4096]);
    let read = precopy.window().await.unwrap();
    writer.send_packs().await.unwrap();
    commit(writer, read.tree).await;
    let copied = content(&repository.reader().await.unwrap(), &read, "file").await.unwrap();
    copied == vec![b'n'; 4096]
}

/// Its stamp is older than its data, so a look at the file never tells.
async fn is_not_missed(kind: &str) {
    let (Some(kind), Some(_)) = (require::loop_device(kind), require::program("python3")) else { return };
    assert!(holds_the_stalled_write(kind, true).await, "a write that began before the look is missed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_stalls_across_the_look_is_not_missed_on_ext4_and_is_without_a_drain() {
    is_not_missed("ext4").await;
    let Some(kind) = require::loop_device("ext4") else { return };
    assert!(!holds_the_stalled_write(kind, false).await, "the control misses nothing, so this proves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_stalls_across_the_look_is_not_missed_on_xfs() {
    is_not_missed("xfs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_stalls_across_the_look_is_not_missed_on_btrfs() {
    is_not_missed("btrfs").await;
}
