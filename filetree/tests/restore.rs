//! Restores that meet damage, hostile trees, and targets that are not what they were.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use common::{VOLUME, init, random::noise};
use jiff::Timestamp;
use stillpoint_filetree::{
    restore::{Error, MARKER, Problem, ProblemKind, Report, Start},
    volume,
};
use stillpoint_repository::{Node, Repository, SnapshotMeta, Tree, Writer, go_mode};

fn time() -> Timestamp {
    "2026-01-02T03:04:05.678901234Z".parse().unwrap()
}

/// A file of our own, so that nobody needs to be root.
async fn file(writer: &Writer, name: &str, content: &[u8]) -> Node {
    own(Node::file(name, writer.bytes(content).await.unwrap(), time()))
}

fn own(node: Node) -> Node {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Node { uid, gid, ..node }
}

async fn directory(writer: &Writer, name: &str, nodes: Vec<Node>) -> Node {
    own(Node::dir(name, writer.tree(Tree::new(nodes).unwrap()).await.unwrap(), time()))
}

/// Commits nodes as a backup of the volume, whose path is `/volume`.
async fn commit(writer: Writer, nodes: Vec<Node>) {
    let volume = directory(&writer, "volume", nodes).await;
    let meta = SnapshotMeta {
        tree: writer.tree(Tree::new(vec![volume]).unwrap()).await.unwrap(),
        hostname: "host".into(),
        paths: vec!["/volume".into()],
        tags: vec![volume::TAG.into(), VOLUME.into()],
        time: time(),
        program_version: None,
        summary: None,
    };
    writer.commit(meta).await.unwrap();
}

/// A repository on disk whose volume holds these files.
async fn with_files(folder: &Path, files: &[(&str, Vec<u8>)]) -> Repository {
    let repository = init(&folder.join("repository")).await;
    let writer = repository.writer().await.unwrap();
    let mut nodes = Vec::new();
    for (name, content) in files {
        nodes.push(file(&writer, name, content).await);
    }
    commit(writer, nodes).await;
    repository
}

fn problems(report: &Report, kind: ProblemKind) -> BTreeSet<String> {
    let of_kind = report.problems.named.iter().filter(|problem| problem.kind == kind);
    of_kind.map(|Problem { path, .. }| path.to_str().unwrap().to_owned()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// The largest pack of a repository: the one with the files.
fn data_pack(repository: &Path) -> std::path::PathBuf {
    let folders = fs::read_dir(repository.join("data")).unwrap();
    let packs =
        folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().map(|pack| pack.unwrap().path()));
    packs.max_by_key(|pack| pack.metadata().unwrap().len()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_costs_the_file_that_holds_it_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a", "b", "c", "d"].map(|name| (name, noise(u64::from(name.as_bytes()[0]), 100_000)));
    let repository = with_files(folder.path(), &files).await;
    let pack = data_pack(&folder.path().join("repository"));
    let mut bytes = fs::read(&pack).unwrap();
    bytes[150_000] ^= 1;
    fs::write(&pack, bytes).unwrap();

    let target = folder.path().join("target");
    let report = common::restore(&repository, &target).await.unwrap();
    let damaged = problems(&report, ProblemKind::Content);
    assert_eq!(damaged.len(), 1, "{:?}", report.problems);
    for (name, content) in &files {
        let restored = fs::read(target.join(name)).unwrap();
        assert_eq!(restored.len(), content.len(), "{name}");
        assert_eq!(restored == *content, !damaged.contains(*name), "{name}");
    }
    assert_eq!(problems(&report, ProblemKind::Verification), damaged, "reading back finds it as well");
    assert!(!target.join(MARKER).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pack_costs_the_files_in_it_and_no_directory() {
    let folder = tempfile::tempdir().unwrap();
    let repository = with_files(folder.path(), &[("a", noise(1, 3_000_000)), ("empty", Vec::new())]).await;
    fs::remove_file(data_pack(&folder.path().join("repository"))).unwrap();
    let target = folder.path().join("target");
    let report = common::restore(&repository, &target).await.unwrap();
    assert_eq!(problems(&report, ProblemKind::Content), names(&["a"]));
    assert_eq!(fs::metadata(target.join("empty")).unwrap().len(), 0);
    assert_eq!(report.verified.unwrap().files, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_target_or_that_of_another_backup_is_refused_by_name_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let repository = with_files(folder.path(), &[("a", b"backed up".to_vec())]).await;
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("a"), b"mine").unwrap();
    let refused = common::restore(&repository, &target).await.unwrap_err();
    assert!(matches!(&refused, Error::NotEmpty { found, .. } if found == "a"), "{refused}");
    assert_eq!(fs::read(target.join("a")).unwrap(), b"mine");

    fs::write(target.join(MARKER), br#"{"volume":"other","snapshot":"00","path":"/"}"#).unwrap();
    let refused = common::restore(&repository, &target).await.unwrap_err();
    assert!(matches!(refused, Error::OtherRestore { .. }), "{refused}");
    assert_eq!(fs::read(target.join("a")).unwrap(), b"mine");
}

/// Puts the marker of the newest backup into a target, as an interrupted restore leaves it.
async fn interrupted(repository: &Repository, target: &Path) {
    let (_, plan) = common::plan(repository, target).await.unwrap();
    fs::create_dir_all(target).unwrap();
    fs::write(target.join(MARKER), serde_json::to_vec(&plan.source).unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_place_of_a_directory_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let repository = init(&folder.path().join("repository")).await;
    let writer = repository.writer().await.unwrap();
    let inner = file(&writer, "file", b"inside").await;
    let nodes = vec![directory(&writer, "dir", vec![inner]).await, file(&writer, "link", b"a file").await];
    commit(writer, nodes).await;
    let (target, outside) = (folder.path().join("target"), folder.path().join("outside"));
    interrupted(&repository, &target).await;
    fs::create_dir(&outside).unwrap();
    symlink(&outside, target.join("dir")).unwrap();
    symlink(outside.join("new"), target.join("link")).unwrap();

    let report = common::restore(&repository, &target).await.unwrap();
    assert_eq!(report.start, Start::Resumed);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "it was written outside the target");
    assert!(problems(&report, ProblemKind::Missing).contains("dir"), "{:?}", report.problems);
    assert_eq!(fs::read(target.join("link")).unwrap(), b"a file");
    assert!(fs::symlink_metadata(target.join("link")).unwrap().is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_that_lie_are_named_and_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let repository = init(&folder.path().join("repository")).await;
    let writer = repository.writer().await.unwrap();
    let linked = |node: Node| Node { inode: 7, device_id: 1, links: 2, ..node };
    let mut shorter = file(&writer, "size", b"ten bytes!").await;
    shorter.size = 1 << 60;
    let mut encoded = file(&writer, "attribute", b"x").await;
    encoded.extended_attributes =
        vec![serde_json::from_value(serde_json::json!({"name": "user.x", "value": "not base64"})).unwrap()];
    let nodes = vec![
        linked(file(&writer, "link1", b"one").await),
        linked(file(&writer, "link2", b"another").await),
        linked(file(&writer, "link3", b"one").await),
        shorter,
        encoded,
        file(&writer, MARKER, b"not ours").await,
    ];
    commit(writer, nodes).await;

    let target = folder.path().join("target");
    let report = common::restore(&repository, &target).await.unwrap();
    assert_eq!(problems(&report, ProblemKind::Link), names(&["link2"]));
    assert_eq!(problems(&report, ProblemKind::Content), names(&["size"]));
    assert_eq!(problems(&report, ProblemKind::Attribute), names(&["attribute"]));
    assert_eq!(problems(&report, ProblemKind::Missing), names(&[MARKER]));
    let inode = |name: &str| fs::metadata(target.join(name)).unwrap().ino();
    assert_eq!(inode("link1"), inode("link3"));
    assert_ne!(inode("link1"), inode("link2"));
    assert_eq!(fs::read(target.join("link2")).unwrap(), b"another");
    assert_eq!(fs::read(target.join("size")).unwrap(), b"ten bytes!");
    assert!(!target.join(MARKER).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_deeper_than_any_path_are_restored() {
    let folder = tempfile::tempdir().unwrap();
    let repository = init(&folder.path().join("repository")).await;
    let writer = repository.writer().await.unwrap();
    let mut node = file(&writer, "deepest", b"here").await;
    for _ in 0..2100 {
        node = directory(&writer, "d", vec![node]).await;
    }
    commit(writer.clone(), vec![node]).await;
    let target = folder.path().join("target");
    let report = common::restore(&repository, &target).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!((report.counts.directories, report.verified.unwrap().files), (2101, 1));
    remove_deep(&target);
}

/// Removes directories whose path is longer than the system takes.
fn remove_deep(top: &Path) {
    let removed = std::process::Command::new("rm").arg("-rf").arg(top).status().unwrap();
    assert!(removed.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_of_zeros_is_read_once_and_takes_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let repository = init(&folder.path().join("repository")).await;
    let writer = repository.writer().await.unwrap();
    let zeros = writer.bytes(&vec![0; 1 << 20]).await.unwrap();
    let end = writer.bytes(b"the end").await.unwrap();
    let mut node = file(&writer, "sparse", b"").await;
    let blobs = std::iter::repeat_n(zeros.blobs[0], 20_000).chain(end.blobs).collect();
    (node.content, node.size) = (Some(blobs), (20_000 << 20) + 7);
    commit(writer, vec![node]).await;

    let target = folder.path().join("target");
    let (_, plan) = common::plan(&repository, &target).await.unwrap();
    assert!(plan.read_bytes < 1 << 20, "{}", plan.read_bytes);
    let report = common::restore(&repository, &target).await.unwrap();
    assert_eq!((report.counts.bytes, report.problems.count()), ((20_000 << 20) + 7, 0));
    assert_eq!(report.verified.unwrap().bytes, report.counts.bytes);
    let stat = fs::metadata(target.join("sparse")).unwrap();
    assert_eq!(stat.len(), (20_000 << 20) + 7);
    assert!(stat.blocks() * 512 < 64 << 10, "{} blocks", stat.blocks());
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_that_lock_everybody_out_are_set_last() {
    let folder = tempfile::tempdir().unwrap();
    let repository = init(&folder.path().join("repository")).await;
    let writer = repository.writer().await.unwrap();
    let inner = Node { mode: 0o000, ..file(&writer, "file", b"x").await };
    let locked = Node { mode: go_mode(0o040_500), ..directory(&writer, "dir", vec![inner]).await };
    commit(writer, vec![locked]).await;
    let target = folder.path().join("target");
    let (reader, plan) = common::plan(&repository, &target).await.unwrap();
    let report = stillpoint_filetree::restore::apply(
        &reader,
        plan,
        false,
        tokio::sync::watch::Sender::default(),
        tokio_util::sync::CancellationToken::new(),
    );
    assert!(report.await.unwrap().problems.is_empty());
    let mode = |path: &str| fs::metadata(target.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("dir"), mode("dir/file"), mode("")), (0o500, 0, 0o700));
    let modified = |path: &str| fs::metadata(target.join(path)).map(|stat| (stat.mtime(), stat.mtime_nsec())).unwrap();
    let expected = (time().as_second(), i64::from(time().subsec_nanosecond()));
    assert_eq!([modified("dir"), modified("dir/file"), modified("")], [expected; 3]);
    fs::set_permissions(target.join("dir"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}
