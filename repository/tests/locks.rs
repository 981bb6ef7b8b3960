//! Shares and excludes with restic itself: each side sees the other's locks, and nobody's work is lost by it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{
    io::Write,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use common::{backup, commit, init, local, open, restic, restic_command, restic_ok};
use stillpoint_repository::{Control, Error, Id, LockState, PruneRequest, Stale, Store};
use stillpoint_test_support::require;

const DEADLINE: Duration = Duration::from_secs(60);
/// Tells a test that it is to hold a lock on this repository until it is killed.
const HOLD: &str = "STILLPOINT_TEST_HOLD_LOCK";

/// Locks that are there; on their way they have other names.
fn locks(repository: &Path) -> usize {
    let names = std::fs::read_dir(repository.join("locks")).unwrap();
    names.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().parse::<Id>().is_ok()).count()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A backup of restic that goes on until its input ends.
fn restic_backup(repository: &Path) -> (Running, ChildStdin) {
    let mut command = restic_command(repository);
    command.args(["backup", "--stdin"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = Running(command.spawn().unwrap());
    let input = child.0.stdin.take().unwrap();
    until("restic locks", || locks(repository) == 1);
    (child, input)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forget_of_ours_refuses_or_waits_while_restic_backs_up_and_a_backup_does_not() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    let snapshot = backup(&repository, 10).await.unwrap();

    let (mut restic, mut input) = restic_backup(&path);
    match repository.forget(&snapshot).await {
        Err(Error::Locked { pid, exclusive: false, .. }) => assert_eq!(pid, restic.0.id()),
        other => panic!("{other:?}"),
    }
    backup(&repository, 20).await.unwrap();

    let patient = repository.clone().with_patience(DEADLINE);
    let forget = tokio::spawn(async move { patient.forget(&snapshot).await });
    input.write_all(b"content").unwrap();
    drop(input);
    assert!(restic.0.wait().unwrap().success());
    forget.await.unwrap().unwrap();
    assert_eq!(repository.snapshots().await.unwrap().len(), 2);
    restic_ok(&path, ["check", "--read-data"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_ours_refuses_while_restic_prunes() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    backup(&repository, 30_000).await.unwrap();
    let mut command = restic_command(&path);
    // slow enough to be met at work
    command.args(["--limit-download", "8", "prune"]).stdout(Stdio::null()).stderr(Stdio::null());
    let restic = Running(command.spawn().unwrap());
    until("restic locks", || locks(&path) == 1);
    match repository.writer().await {
        Err(Error::Locked { pid, exclusive: true, .. }) => assert_eq!(pid, restic.0.id()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_neither_prunes_nor_forgets_while_we_write() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    let snapshot = backup(&repository, 10).await.unwrap().to_string();
    let writer = repository.writer().await.unwrap();
    for command in [&["prune"][..], &["forget", &snapshot]] {
        let refused = restic(&path, command);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains("already locked"), "{said}");
    }
    commit(writer, 20).await.unwrap();
    restic_ok(&path, ["forget", "--prune", &snapshot]);
    restic_ok(&path, ["check", "--read-data"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_prunes_or_forgets_while_somebody_reads_and_everybody_backs_up() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    let snapshot = backup(&repository, 10).await.unwrap();
    let (lock, snapshots) = repository.read_lock_while(|| repository.snapshots()).await.unwrap();
    assert_eq!((snapshots.len(), locks(&path)), (1, 1));
    for command in [&["prune"][..], &["forget", &snapshot.to_string()]] {
        let refused = restic(&path, command);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains("already locked"), "{said}");
    }
    let pruned = repository.prune(&PruneRequest::default(), &Control::default()).await.map(drop);
    for refused in [pruned, repository.forget(&snapshot).await] {
        assert!(matches!(refused, Err(Error::Locked { exclusive: false, .. })), "{refused:?}");
    }
    backup(&repository, 20).await.unwrap();
    restic_ok(&path, ["backup", "--quiet", "Cargo.toml"]);

    let patient = repository.clone().with_patience(DEADLINE);
    let prune = tokio::spawn(async move { patient.prune(&PruneRequest::default(), &Control::default()).await });
    lock.release().await;
    prune.await.unwrap().unwrap().abandon().await;
    assert_eq!(locks(&path), 0);
    repository.forget(&snapshot).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_begins_to_read_while_a_prune_runs_and_a_lock_that_cannot_be_read_is_no_hindrance() {
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    backup(&repository, 10).await.unwrap();
    let prune = repository.prune(&PruneRequest::default(), &Control::default()).await.unwrap();
    let refused = repository.read_lock_while(|| repository.snapshots()).await;
    assert!(matches!(refused.map(drop), Err(Error::Locked { exclusive: true, .. })));
    prune.abandon().await;

    // what nobody can read keeps exclusive locks away, so it is as good as one of ours
    std::fs::write(path.join("locks").join(Id::of(b"garbage").to_string()), "garbage").unwrap();
    let (lock, snapshots) = repository.read_lock_while(|| repository.snapshots()).await.unwrap();
    assert_eq!(snapshots.len(), 1);
    lock.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_survives_that_restic_asks_whether_it_lives() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    let writer = repository.writer().await.unwrap();
    // it sends SIGHUP to this process
    restic_ok(&path, ["unlock"]);
    assert_eq!(locks(&path), 1);
    commit(writer, 10).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_lock_restic_removed_commits_nothing() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    let writer = repository.writer().await.unwrap();
    restic_ok(&path, ["unlock", "--remove-all"]);
    let refused = commit(writer, 10).await;
    assert!(matches!(refused, Err(Error::LockLost { .. })), "{refused:?}");
    assert!(repository.snapshots().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests beside it, as another process"]
async fn holds_a_lock_until_it_is_killed() {
    let Ok(url) = std::env::var(HOLD) else { return };
    let repository = open(&Store::from_url(&url).unwrap()).await;
    let _writer = repository.writer().await.unwrap();
    std::future::pending().await
}

/// A writer in another process, killed while it held its lock.
fn killed_writer(repository: &Path) -> u32 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "holds_a_lock_until_it_is_killed"]).env(HOLD, repository);
    let mut writer = Running(command.stdout(Stdio::null()).spawn().unwrap());
    until("the writer locks", || locks(repository) == 1);
    let pid = writer.0.id();
    writer.0.kill().unwrap();
    writer.0.wait().unwrap();
    pid
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_killed_writer_is_stale_at_once_for_us() {
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    let snapshot = backup(&repository, 10).await.unwrap();
    killed_writer(&path);
    repository.forget(&snapshot).await.unwrap();
    assert_eq!(locks(&path), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_killed_writer_is_stale_at_once_for_restic() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    init(&store).await;
    killed_writer(&path);
    restic_ok(&path, ["unlock"]);
    assert_eq!(locks(&path), 0);
    restic_ok(&path, ["prune"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unlock_removes_stale_locks_by_name_and_live_ones_only_if_told() {
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    let pid = killed_writer(&path);
    let writer = repository.writer().await.unwrap();
    let unreadable = path.join("locks").join(Id::of(b"garbage").to_string());
    std::fs::write(&unreadable, "garbage").unwrap();

    let unlocked = repository.unlock(false).await.unwrap();
    let [removed] = &unlocked.removed[..] else { panic!("{unlocked:?}") };
    assert_eq!((removed.holder.as_ref().unwrap().pid, &removed.state), (pid, &LockState::Stale(Stale::ProcessGone)));
    assert_eq!(unlocked.kept.len(), 2);
    let live = unlocked.kept.iter().find(|lock| lock.state == LockState::Live).unwrap();
    assert_eq!(live.holder.as_ref().unwrap().pid, std::process::id());
    assert!(unreadable.exists());

    assert_eq!(repository.unlock(true).await.unwrap().removed.len(), 2);
    assert_eq!(locks(&path), 0);
    let refused = commit(writer, 10).await;
    assert!(matches!(refused, Err(Error::LockLost { .. })), "{refused:?}");
}
