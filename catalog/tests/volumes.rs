//! Volumes in a backup: what was placed is found beside its record, and what the manifest does not name is damage.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Shelf, at, manifest};
use stillpoint_api::{Digest, Level, Method, VolumeData, VolumeRecord, VolumeSnapshot};
use stillpoint_catalog::{Damage, Draft, Error};
use stillpoint_repository::{Id, Node, Tree};

fn record(claim: &str, tree: Id) -> VolumeRecord {
    let snapshot = VolumeSnapshot {
        tree: Digest(tree.0),
        node: "a".into(),
        filesystem: "ext4".into(),
        method: Method::Precopy,
        reason: "ext4 can be frozen".into(),
        level: Level::Filesystem,
        stopped: None,
        strangers: Vec::new(),
        files: 1,
        bytes: 5,
        bytes_read: 5,
        unread: 0,
    };
    VolumeRecord { namespace: "shop".into(), claim: claim.into(), data: VolumeData::Held(Box::new(snapshot)) }
}

/// A backup with one volume of one file, whose manifest has the records that `say` makes of the volume's tree.
async fn put(shelf: &Shelf, say: impl FnOnce(Id) -> Vec<VolumeRecord>) -> Id {
    let mut draft = Draft::begin(&shelf.repository, "b").await.unwrap();
    let writer = draft.writer();
    let file = Node::file("hello", writer.bytes(b"world").await.unwrap(), at(1));
    let tree = writer.tree(Tree::new(vec![file]).unwrap()).await.unwrap();
    let root = Node { mode: 0o750, uid: 26, ..Node::dir("root", tree, at(1)) };
    draft.place_volume("shop", "data", root);
    let sealed = draft.seal(at(1)).await.unwrap();
    let mut manifest = manifest("b", "c", sealed.trees.clone());
    manifest.volumes = say(tree);
    sealed.commit(&manifest, Some(&shelf.key)).await.unwrap();
    tree
}

async fn damage(shelf: &Shelf) -> Damage {
    match shelf.find("b").await.unwrap().volumes().await.unwrap_err() {
        Error::Damaged { damage, .. } => *damage,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_volume_is_found_under_its_claims_name_with_the_attributes_of_its_root() {
    let shelf = Shelf::new().await;
    let tree = put(&shelf, |tree| vec![record("data", tree)]).await;
    let volumes = shelf.find("b").await.unwrap().volumes().await.unwrap();
    let [(found, node)] = volumes.as_slice() else { panic!("{volumes:?}") };
    assert_eq!(*found, record("data", tree));
    assert_eq!((node.name.to_str(), node.uid, node.mode, node.subtree), (Some("data"), 26, 0o750, Some(tree)));
}

#[tokio::test]
async fn a_backup_without_volumes_has_no_folder_for_them() {
    let shelf = Shelf::new().await;
    shelf.put("b", "c", 1).await;
    let backup = shelf.find("b").await.unwrap();
    assert_eq!(backup.manifest.trees.volumes, None);
    assert!(backup.volumes().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_volume_that_the_manifest_does_not_name_is_damage() {
    let shelf = Shelf::new().await;
    put(&shelf, |_| Vec::new()).await;
    let damage = damage(&shelf).await;
    assert!(matches!(&damage, Damage::Foreign { path } if path == "volumes/shop/data"), "{damage}");
}

#[tokio::test]
async fn a_volume_that_is_not_held_must_not_be_there() {
    let shelf = Shelf::new().await;
    put(&shelf, |tree| vec![VolumeRecord { data: VolumeData::NotHeld, ..record("data", tree) }]).await;
    assert!(matches!(damage(&shelf).await, Damage::Foreign { .. }));
}

#[tokio::test]
async fn a_volume_with_another_tree_than_its_record_is_damage() {
    let shelf = Shelf::new().await;
    put(&shelf, |_| vec![record("data", Id([7; 32]))]).await;
    let damage = damage(&shelf).await;
    assert!(matches!(&damage, Damage::WrongTree { expected, .. } if *expected == Digest([7; 32])), "{damage}");
}

#[tokio::test]
async fn a_volume_that_is_named_and_not_there_is_damage() {
    let shelf = Shelf::new().await;
    put(&shelf, |tree| vec![record("data", tree), record("more", tree)]).await;
    let damage = damage(&shelf).await;
    assert!(matches!(&damage, Damage::Missing { path } if path == "volumes/shop/more"), "{damage}");
}
