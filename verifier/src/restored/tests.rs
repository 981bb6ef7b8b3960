use serde_json::json;
use stillpoint_api::{Manifest, ScratchKind};
use stillpoint_catalog::{self as catalog, Draft};
use stillpoint_objects::write::{self, DryRun};
use stillpoint_repository::{Kdf, Password, Repository, Store, signing::Trust};
use stillpoint_restore::{Applied, Kept, Refused};

use super::*;
use crate::{
    fixtures::{manifest, record, resource},
    held::Held,
    scratch::ScratchCluster,
};

/// More than a list's first page.
const MANY: usize = 250;

fn name(index: usize) -> String {
    format!("map-{index:04}")
}

fn map(index: usize, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(index), "namespace": "default"},
        "data": {"value": value}})
}

/// A backup of config maps in the namespace `default`.
async fn backup(indices: impl Iterator<Item = usize>) -> (Repository, Backup) {
    let repository = Repository::init(Store::memory(), &Password::new("p"), Kdf::fast_for_tests()).await.unwrap();
    let mut draft = Draft::begin(&repository, "shop-1").await.unwrap();
    let mut file = draft.writer().file_writer();
    let mut captured = 0;
    for index in indices {
        file.append(&name(index), map(index, "captured").to_string().as_bytes()).await.unwrap();
        captured += 1;
    }
    let types = vec![record("configmaps", "ConfigMap", captured)];
    draft.place(&types[0].resource.name, Some("default"), file.finish().await.unwrap());
    let mut manifest = manifest(types);
    let sealed = draft.seal(manifest.cut.read_at).await.unwrap();
    manifest.trees = sealed.trees.clone();
    sealed.commit(&manifest, None).await.unwrap();
    let backup = catalog::find(&repository, "shop-1", &Trust::default()).await.unwrap();
    (repository, backup)
}

/// A cluster that has some config maps with some value.
async fn cluster(maps: impl Iterator<Item = (usize, &str)>) -> ScratchCluster {
    let cluster = ScratchCluster::start(ScratchKind::Embedded).await.unwrap();
    let maps_type = resource("configmaps", "ConfigMap", true);
    for (index, value) in maps {
        let map = map(index, value);
        write::create(&cluster.client(), &maps_type, &map, DryRun::No, &Retry::default()).await.unwrap();
    }
    cluster
}

/// The checks' subjects: what is gone, and what differs.
async fn compare(cluster: &ScratchCluster, backup: &Backup, applied: &Applied) -> (Vec<String>, Vec<String>, String) {
    let (held, manifest): (Held, Manifest) = (Held::default(), backup.manifest.clone());
    let expected = Expected::of(&manifest, &held, std::iter::empty(), applied);
    let (retry, progress) = (Retry::default(), watch::Sender::default());
    let comparison = Comparison { backup, expected: &expected, retry: &retry, progress: &progress };
    let seen = comparison.run(&cluster.client(), &backup.files().await.unwrap()).await.unwrap();
    let subjects = |check: stillpoint_api::Check| check.findings.into_iter().map(|finding| finding.subject).collect();
    let equal = seen.equal.judge();
    let summary = equal.summary.clone();
    (subjects(seen.still_there.judge(crate::collector::Collected::NoCollector)), subjects(equal), summary)
}

fn written(index: usize) -> String {
    format!("configmaps.core/default/{}", name(index))
}

#[tokio::test]
async fn over_many_pages_what_is_gone_and_what_differs_is_named_and_nothing_else() {
    let (_repository, backup) = backup((0..MANY).filter(|index| *index != 100)).await;
    let missing = [0, 99, 101, MANY - 1];
    let value = |index| if index == 120 { "other" } else { "captured" };
    let there = (0..MANY + 20).filter(|index| !missing.contains(index));
    let cluster = cluster(there.map(|index| (index, value(index)))).await;
    let (gone, different, summary) = compare(&cluster, &backup, &Applied::default()).await;
    assert_eq!(gone, missing.map(written));
    assert_eq!(different, [written(120)]);
    assert_eq!(summary, format!("{} objects equal; 1 different", MANY - 1 - missing.len() - 1));
    cluster.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_refused_need_not_be_there_and_what_was_kept_need_not_be_equal() {
    let (_repository, backup) = backup(0..3).await;
    let cluster = cluster([(1, "kept"), (2, "captured")].into_iter()).await;
    let refused = Refused { object: written(0).parse().unwrap(), reason: "no".into() };
    let kept = Kept { object: written(1).parse().unwrap(), differs: Vec::new() };
    let applied = Applied { refused: vec![refused], kept: vec![kept], ..Applied::default() };
    let (gone, different, _) = compare(&cluster, &backup, &applied).await;
    assert_eq!((gone, different), (Vec::new(), Vec::new()));
    let (gone, different, _) = compare(&cluster, &backup, &Applied::default()).await;
    assert_eq!((gone, different), (vec![written(0)], vec![written(1)]));
    cluster.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_file_out_of_order_is_not_compared_beyond_there() {
    let (_repository, backup) = backup([1, 0, 2].into_iter()).await;
    let cluster = cluster(std::iter::once((1, "captured"))).await;
    let (gone, different, summary) = compare(&cluster, &backup, &Applied::default()).await;
    assert_eq!((gone, different), (Vec::new(), Vec::new()));
    assert_eq!(summary, "1 object equal; 1 file out of order, and not compared from there on");
    cluster.shutdown().await.unwrap();
}
