//! Lets restic itself judge what we write, and reads what it writes.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use common::{init, joined, lines, local, meta, objects, open, restic, restic_ok, root};
use futures::TryStreamExt;
use stillpoint_repository::{Node, NodeKind, Reader, Repository};
use stillpoint_test_support::require;

#[tokio::test(flavor = "multi_thread")]
async fn restic_checks_lists_dumps_and_restores_what_we_write() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    let objects = objects(30_000);
    let writer = repository.writer().await.unwrap();
    let content = lines(&writer, objects.clone()).await;
    let tree = root(&writer, content).await;
    let snapshot = writer.commit(meta(tree)).await.unwrap();

    restic_ok(&path, ["check", "--read-data"]);
    let listed = String::from_utf8(restic_ok(&path, ["ls", "--long", "latest"])).unwrap();
    assert!(listed.contains("/resources/shop.jsonl"), "{listed}");
    let dump = ["dump", "--tag", "stillpoint", "--host", "shop", "latest", "/resources/shop.jsonl"];
    assert!(restic_ok(&path, dump) == joined(&objects));
    let target = folder.path().join("restored");
    restic_ok(&path, ["restore", &snapshot.to_string(), "--target", target.to_str().unwrap()]);
    assert!(std::fs::read(target.join("resources/shop.jsonl")).unwrap() == joined(&objects));
    assert_eq!(std::fs::read(target.join("manifest.json")).unwrap(), b"{\"kind\":\"manifest\"}");

    restic_ok(&path, ["forget", "--prune", &snapshot.to_string()]);
    assert!(open(&store).await.snapshots().await.unwrap().is_empty());
    restic_ok(&path, ["check", "--read-data"]);
}

async fn content(reader: &Reader, node: &Node) -> Vec<u8> {
    let pieces: Vec<_> = reader.content(node).unwrap().try_collect().await.unwrap();
    pieces.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_what_restic_writes_and_write_its_trees_alike() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let source = folder.path().join("source");
    std::fs::create_dir_all(source.join("sub <&> \"dir\"")).unwrap();
    let large: Vec<u8> = common::joined(&objects(6000));
    let files = [("empty", &b""[..]), ("sub <&> \"dir\"/käse\n", b"small"), ("large", &large)];
    for (name, bytes) in files {
        std::fs::write(source.join(name), bytes).unwrap();
    }
    std::os::unix::fs::symlink("target <&>", source.join("link")).unwrap();
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"not \xff utf8");
    std::fs::write(source.join(odd), b"odd").unwrap();
    restic_ok(&path, ["init", "--repository-version", "2"]);
    restic_ok(&path, ["backup", source.to_str().unwrap()]);

    let repository = open(&store).await;
    let [snapshot] = &repository.snapshots().await.unwrap()[..] else { panic!("one snapshot expected") };
    let reader = repository.reader().await.unwrap();
    let top = reader.find(&snapshot.tree, source.to_str().unwrap()).await.unwrap().unwrap();
    for (name, bytes) in files {
        let node = reader.find(top.subtree.as_ref().unwrap(), name).await.unwrap().unwrap();
        assert!(content(&reader, &node).await == bytes, "{name}");
    }
    let tree = reader.tree(top.subtree.as_ref().unwrap()).await.unwrap();
    assert_eq!(tree.get(odd).unwrap().size, 3);
    assert_eq!(tree.get("link").unwrap().kind, NodeKind::Symlink);

    let writer = repository.writer().await.unwrap();
    let mut pending = vec![snapshot.tree];
    while let Some(id) = pending.pop() {
        let tree = reader.tree(&id).await.unwrap();
        pending.extend(tree.nodes().iter().filter_map(|node| node.subtree));
        assert_eq!(writer.tree(tree).await.unwrap(), id, "the same tree has the same id");
    }
    assert_eq!(writer.stats().blobs_new, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_backs_up_into_our_repository() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    init(&store).await;
    std::fs::write(folder.path().join("file"), joined(&objects(3000))).unwrap();
    restic_ok(&path, ["backup", folder.path().join("file").to_str().unwrap()]);
    restic_ok(&path, ["check", "--read-data"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_does_not_prune_while_we_write() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    let writer = repository.writer().await.unwrap();
    let refused = restic(&path, ["prune"]);
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("already locked") && said.contains(&std::process::id().to_string()), "{said}");

    let content = lines(&writer, objects(10)).await;
    let tree = root(&writer, content).await;
    writer.commit(meta(tree)).await.unwrap();
    restic_ok(&path, ["prune"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_is_content_with_sidecars_and_several_commits() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    repository.put_sidecar("evidence/a", b"evidence").await.unwrap();
    for count in [100, 200, 200] {
        let writer = repository.writer().await.unwrap();
        let content = lines(&writer, objects(count)).await;
        let tree = root(&writer, content).await;
        writer.commit(meta(tree)).await.unwrap();
    }
    restic_ok(&path, ["check", "--read-data"]);
    restic_ok(&path, ["forget", "--keep-last", "1", "--prune"]);
    restic_ok(&path, ["check", "--read-data"]);
    assert_eq!(repository.get_sidecar("evidence/a").await.unwrap(), b"evidence");
    let refused = Repository::open(store, &stillpoint_repository::Password::new("wrong")).await;
    assert!(matches!(refused, Err(stillpoint_repository::Error::WrongPassword { .. })));
}
