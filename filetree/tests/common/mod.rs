//! What the tests of file trees share: random trees, what a tree is in every detail, and both programs' restores.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part")]

pub(crate) mod manifest;
pub(crate) mod random;

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use stillpoint_filetree::{
    backup::{self, Request},
    restore::{self, Error, Plan, Report},
    selection,
    volume::{self, HostFilter},
};
use stillpoint_repository::{Id, Kdf, Password, Reader, Repository, SnapshotMeta, Store, Writer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The password of all test repositories.
pub(crate) const PASSWORD: &str = "correct horse";
/// The volume of all tests.
pub(crate) const VOLUME: &str = "data";

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A new repository in a folder.
pub(crate) async fn init(folder: &Path) -> Repository {
    let store = Store::from_url(folder.to_str().unwrap()).unwrap();
    Repository::init(store, &Password::new(PASSWORD), Kdf::fast_for_tests()).await.unwrap()
}

/// Commits a tree that was read.
pub(crate) async fn commit(writer: Writer, tree: Id) {
    let meta = SnapshotMeta {
        tree,
        hostname: "host".into(),
        paths: vec!["/".into()],
        tags: Vec::new(),
        time: jiff::Timestamp::now(),
        program_version: None,
        summary: None,
    };
    writer.commit(meta).await.unwrap();
}

/// Until what was written before counts as written well before what follows.
pub(crate) fn wait_for_old_stamps() {
    let until = SystemTime::now() + Duration::from_millis(2_050);
    while let Ok(left) = until.duration_since(SystemTime::now()) {
        std::thread::sleep(left);
    }
}

/// restic on a repository; it must succeed.
pub(crate) fn restic(repository: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("restic");
    command.args(["--no-cache", "--quiet", "-r"]).arg(repository).env("RESTIC_PASSWORD", PASSWORD);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "restic {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A backup of a directory as the volume, of the host whose name restic takes too.
pub(crate) fn request(source: &Path) -> Request {
    Request::new(VOLUME, volume::this_host(), vec![source.to_owned()])
}

/// Backs a directory up as the volume.
pub(crate) async fn backup(repository: &Repository, source: &Path) -> Result<backup::Report, backup::Error> {
    backup::backup(repository, &request(source), watch::Sender::default()).await
}

/// Has restic back a directory up as the volume.
pub(crate) fn restic_backup(repository: &Path, source: &Path) {
    let source = source.to_str().unwrap();
    restic(repository, &["backup", "--tag", volume::TAG, "--tag", VOLUME, "--with-atime", source]);
}

pub(crate) async fn plan(repository: &Repository, target: &Path) -> Result<(Reader, Plan), Error> {
    let backup = volume::find(repository, VOLUME, &HostFilter::Any, None).await.unwrap();
    let reader = repository.reader().await?;
    let selection = selection::select(&reader, &backup, None).await.unwrap();
    let plan = restore::plan(&reader, &backup, &selection, target).await?;
    Ok((reader, plan))
}

/// Restores the newest backup of the volume, reading everything back.
pub(crate) async fn restore(repository: &Repository, target: &Path) -> Result<Report, Error> {
    let (reader, plan) = plan(repository, target).await?;
    restore::apply(&reader, plan, true, watch::Sender::default(), CancellationToken::new()).await
}
