//! A repository of backups, good ones and damaged ones: what is listed, opened and believed.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Shelf, at, config_maps, manifest};
use object_store::{ObjectStoreExt, path::Path};
use stillpoint_api::{
    Digest, Evidence, GroupResource, ObjectRef, Outcome, ScratchKind, SignerState, TestResult, Verdict,
    manifest::{FORMAT_VERSION, MANIFEST_FILE, RESOURCES_FOLDER, SIGNATURE_FILE},
};
use stillpoint_catalog::{self as catalog, BACKUP_TAG, Committed, Damage, Draft, Error, Standing, standing};
use stillpoint_repository::{
    Id, Node, Tree,
    signing::{Domain, SigningKey, Trust},
};

#[tokio::test]
async fn what_was_written_is_found_and_read() {
    let shelf = Shelf::new().await;
    let committed = shelf.put("one", "shop", 1).await;
    let backup = shelf.find("one").await.unwrap();
    assert_eq!((backup.root, backup.snapshot), (committed.root, committed.snapshot));
    assert_eq!(backup.signer, SignerState::Trusted(shelf.key.public().fingerprint()));
    let settings: ObjectRef = "configmaps/shop/settings".parse().unwrap();
    let (resource, object) = backup.object(&settings).await.unwrap().unwrap();
    assert_eq!((resource, &object.raw[..]), (config_maps(), &br#"{"metadata":{"name":"settings","uid":"1"}}"#[..]));
    for absent in ["configmaps/shop/other", "configmaps/other/settings", "secrets/shop/settings"] {
        assert!(backup.object(&absent.parse().unwrap()).await.unwrap().is_none(), "{absent}");
    }
}

#[tokio::test]
async fn a_name_is_refused_while_it_is_taken_or_when_it_cannot_be_one() {
    let shelf = Shelf::new().await;
    let committed = shelf.put("one", "shop", 1).await;
    let begin = async |name| Draft::begin(&shelf.repository, name).await.err();
    assert!(matches!(begin("one").await, Some(Error::NameTaken { name }) if name == "one"));
    assert!(matches!(begin("One").await, Some(Error::InvalidName { name }) if name == "One"));
    assert_eq!(catalog::forget(&shelf.repository, "one").await.unwrap(), committed.snapshot);
    assert!(begin("one").await.is_none());
}

#[tokio::test]
async fn what_is_forgotten_or_never_was_is_not_found() {
    let shelf = Shelf::new().await;
    shelf.put("one", "shop", 1).await;
    shelf.put("two", "shop", 2).await;
    catalog::forget(&shelf.repository, "one").await.unwrap();
    for name in ["one", "three"] {
        assert!(matches!(shelf.find(name).await, Err(Error::NotFound { name: named }) if named == name));
        let again = catalog::forget(&shelf.repository, name).await;
        assert!(matches!(again, Err(Error::NotFound { name: named }) if named == name));
    }
    assert_eq!(shelf.find("two").await.unwrap().manifest.backup.name, "two");
}

#[tokio::test]
async fn a_name_that_two_snapshots_carry_is_ambiguous_and_neither_is_opened_or_forgotten() {
    let shelf = Shelf::new().await;
    shelf.put("one", "shop", 1).await;
    shelf.copy("one").await.commit("one").await;
    for error in [shelf.find("one").await.err(), catalog::forget(&shelf.repository, "one").await.err()] {
        assert!(matches!(error, Some(Error::Ambiguous { ref name, count: 2 }) if name == "one"), "{error:?}");
    }
    assert_eq!(shelf.repository.snapshots().await.unwrap().len(), 2);
}

#[tokio::test]
async fn snapshots_without_our_tag_or_without_a_name_are_no_backups() {
    let shelf = Shelf::new().await;
    shelf.put("one", "shop", 1).await;
    shelf.copy("one").await.commit_with(vec!["stillpoint-name:one".into()]).await;
    shelf.copy("one").await.commit_with(vec![BACKUP_TAG.into()]).await;
    let names = catalog::list(&shelf.repository, &shelf.trust()).await.unwrap();
    assert_eq!(names.into_iter().map(|entry| entry.name).collect::<Vec<_>>(), ["one"]);
    assert!(shelf.find("one").await.is_ok(), "a snapshot of another tool takes no name");
}

#[tokio::test]
async fn a_list_is_in_the_order_of_time_and_names_a_damaged_backup_with_the_reason() {
    let shelf = Shelf::new().await;
    shelf.put("newer", "shop", 3).await;
    shelf.put("older", "shop", 1).await;
    let mut parts = shelf.copy("older").await;
    parts.time = at(2);
    parts.drop(MANIFEST_FILE);
    parts.commit("hollow").await;
    let entries = catalog::list(&shelf.repository, &shelf.trust()).await.unwrap();
    let names: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.backup.is_ok())).collect();
    assert_eq!(names, [("older", true), ("hollow", false), ("newer", true)]);
    let reason = entries[1].backup.as_ref().unwrap_err().to_string();
    assert_eq!(reason, r#"the backup "hollow" is damaged: manifest.json is missing"#);
}

#[tokio::test]
async fn a_repository_without_backups_lists_none() {
    let shelf = Shelf::new().await;
    assert!(catalog::list(&shelf.repository, &shelf.trust()).await.unwrap().is_empty());
    assert!(catalog::newest(&shelf.repository, "shop", &shelf.trust()).await.unwrap().is_none());
}

#[tokio::test]
async fn something_beside_the_manifest_that_it_does_not_name_is_damage() {
    let shelf = Shelf::new().await;
    shelf.put("good", "shop", 1).await;
    let mut parts = shelf.take("good").await;
    parts.add_file("extra.sh", b"#!/bin/sh").await;
    parts.commit("good").await;
    let damage = shelf.damage("good").await;
    assert!(matches!(&damage, Damage::Foreign { path } if path == "extra.sh"), "{damage}");
}

#[tokio::test]
async fn files_of_a_type_that_the_manifest_does_not_name_are_damage() {
    let shelf = Shelf::new().await;
    let mut draft = Draft::begin(&shelf.repository, "bad").await.unwrap();
    for resource in [config_maps().name, GroupResource::core("secrets")] {
        let mut file = draft.writer().file_writer();
        file.append("a", br#"{"metadata":{"name":"a"}}"#).await.unwrap();
        draft.place(&resource, Some("shop"), file.finish().await.unwrap());
    }
    let sealed = draft.seal(at(1)).await.unwrap();
    let manifest = manifest("bad", "shop", sealed.trees.clone());
    sealed.commit(&manifest, Some(&shelf.key)).await.unwrap();
    let error = shelf.find("bad").await.unwrap().files().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"the backup "bad" is damaged: resources/secrets.core is in the snapshot but not in the manifest"#
    );
}

#[tokio::test]
async fn a_cluster_scoped_file_of_a_namespaced_type_is_damage() {
    let shelf = Shelf::new().await;
    let mut draft = Draft::begin(&shelf.repository, "bad").await.unwrap();
    let mut file = draft.writer().file_writer();
    file.append("a", br#"{"metadata":{"name":"a"}}"#).await.unwrap();
    draft.place(&config_maps().name, None, file.finish().await.unwrap());
    let sealed = draft.seal(at(1)).await.unwrap();
    let manifest = manifest("bad", "shop", sealed.trees.clone());
    sealed.commit(&manifest, Some(&shelf.key)).await.unwrap();
    let error = shelf.find("bad").await.unwrap().files().await.unwrap_err();
    assert!(error.to_string().contains("resources/configmaps.core/_cluster.jsonl is in the snapshot"), "{error}");
}

#[tokio::test]
async fn another_tree_of_resources_than_the_manifest_names_is_damage() {
    let shelf = Shelf::new().await;
    let named = digest_of(&shelf.put("good", "shop", 1).await, &shelf).await;
    let mut parts = shelf.take("good").await;
    parts.drop(RESOURCES_FOLDER);
    let empty = parts.writer.tree(Tree::new(Vec::new()).unwrap()).await.unwrap();
    parts.nodes.push(Node::dir(RESOURCES_FOLDER, empty, parts.time));
    parts.commit("good").await;
    match shelf.damage("good").await {
        Damage::WrongTree { path, found, expected } => {
            assert_eq!((path.as_str(), found, expected), (RESOURCES_FOLDER, Digest(empty.0), named));
        }
        other => panic!("{other}"),
    }
}

async fn digest_of(committed: &Committed, shelf: &Shelf) -> Digest {
    let snapshot = shelf.repository.snapshot(&committed.snapshot).await.unwrap();
    let tree = shelf.repository.reader().await.unwrap().tree(&snapshot.tree).await.unwrap();
    Digest(tree.get(RESOURCES_FOLDER).unwrap().subtree.unwrap().0)
}

#[tokio::test]
async fn no_tree_of_resources_is_damage() {
    let shelf = Shelf::new().await;
    shelf.put("good", "shop", 1).await;
    let mut parts = shelf.take("good").await;
    parts.drop(RESOURCES_FOLDER);
    parts.commit("good").await;
    let damage = shelf.damage("good").await;
    assert!(matches!(&damage, Damage::Missing { path } if path == RESOURCES_FOLDER), "{damage}");
}

#[tokio::test]
async fn a_snapshot_with_another_name_than_its_manifest_is_damage() {
    let shelf = Shelf::new().await;
    shelf.put("good", "shop", 1).await;
    shelf.copy("good").await.commit("renamed").await;
    let damage = shelf.damage("renamed").await;
    let named =
        matches!(&damage, Damage::WrongName { snapshot, manifest } if snapshot == "renamed" && manifest == "good");
    assert!(named, "{damage}");
}

#[tokio::test]
async fn a_manifest_of_a_future_format_is_named_as_such_whatever_else_it_says() {
    let shelf = Shelf::new().await;
    shelf.put("good", "shop", 1).await;
    let mut parts = shelf.copy("good").await;
    parts.replace_manifest(br#"{"formatVersion":2,"moons":["Io"]}"#, &shelf.key).await;
    parts.commit("future").await;
    let damage = shelf.damage("future").await;
    assert!(matches!(damage, Damage::Version { found: 2, known: FORMAT_VERSION }), "{damage}");
}

#[tokio::test]
async fn a_manifest_or_a_signature_that_is_no_such_document_is_damage() {
    let shelf = Shelf::new().await;
    shelf.put("good", "shop", 1).await;
    for (name, bytes) in [("bad-1", &b"{}"[..]), ("bad-2", br#"{"formatVersion":1,"moons":["Io"]}"#)] {
        let mut parts = shelf.copy("good").await;
        parts.replace_manifest(bytes, &shelf.key).await;
        parts.commit(name).await;
        let damage = shelf.damage(name).await;
        assert!(matches!(&damage, Damage::Malformed { path, .. } if path == MANIFEST_FILE), "{damage}");
    }
    let mut parts = shelf.copy("good").await;
    parts.drop(SIGNATURE_FILE);
    parts.add_file(SIGNATURE_FILE, b"signed").await;
    parts.commit("bad-3").await;
    let damage = shelf.damage("bad-3").await;
    assert!(matches!(&damage, Damage::Malformed { path, .. } if path == SIGNATURE_FILE), "{damage}");
}

#[tokio::test]
async fn a_line_that_is_no_object_is_named_with_its_number() {
    let shelf = Shelf::new().await;
    shelf.put_line("bad", "shop", 1, br#"{"metadata":{}}"#).await;
    let backup = shelf.find("bad").await.unwrap();
    let files = backup.files().await.unwrap();
    let error = backup.objects(&files[0]).unwrap().next().await.unwrap_err();
    assert!(error.to_string().contains("resources/configmaps.core/shop.jsonl, line 1: not an object"), "{error}");
}

#[tokio::test]
async fn the_signer_is_who_signed_this_manifest_and_is_judged_by_the_pinned_keys() {
    let shelf = Shelf::new().await;
    shelf.put("good", "shop", 1).await;
    let fingerprint = shelf.key.public().fingerprint();
    let signer = async |name, trust: Trust| catalog::find(&shelf.repository, name, &trust).await.unwrap().signer;
    let other = Trust::new([SigningKey::generate().public()]);
    assert_eq!(signer("good", shelf.trust()).await, SignerState::Trusted(fingerprint.clone()));
    assert_eq!(signer("good", Trust::default()).await, SignerState::Unverified(fingerprint.clone()));
    assert_eq!(signer("good", other).await, SignerState::Untrusted(fingerprint));

    // the signature of one backup beside the manifest of another
    shelf.put("victim", "shop", 2).await;
    let stolen = shelf.copy("good").await;
    stolen.writer.abandon().await;
    let stolen = stolen.nodes.into_iter().find(|node| node.name == *SIGNATURE_FILE).unwrap();
    let mut parts = shelf.take("victim").await;
    parts.drop(SIGNATURE_FILE);
    parts.nodes.push(stolen);
    parts.commit("victim").await;
    assert_eq!(signer("victim", shelf.trust()).await, SignerState::Invalid);

    let mut parts = shelf.take("good").await;
    parts.drop(SIGNATURE_FILE);
    parts.commit("good").await;
    assert_eq!(signer("good", shelf.trust()).await, SignerState::Unsigned);
}

#[tokio::test]
async fn the_newest_backup_is_that_of_the_cluster_and_one_that_can_be_opened() {
    let shelf = Shelf::new().await;
    let newest = async || {
        let newest = catalog::newest(&shelf.repository, "shop", &shelf.trust()).await.unwrap();
        newest.map(|backup| backup.manifest.backup.name)
    };
    shelf.put("foreign", "bank", 9).await;
    assert_eq!(newest().await, None);
    shelf.put("second", "shop", 2).await;
    shelf.put("first", "shop", 1).await;
    assert_eq!(newest().await.as_deref(), Some("second"));
    let mut parts = shelf.copy("second").await;
    parts.time = at(3);
    parts.drop(MANIFEST_FILE);
    parts.commit("hollow").await;
    assert_eq!(newest().await.as_deref(), Some("second"), "a damaged backup hides no good one");
}

/// A verdict about a root, ended at some second.
fn verdict(root: Digest, result: TestResult, second: i64) -> Verdict {
    Verdict {
        format_version: FORMAT_VERSION,
        backup: "one".into(),
        root: Some(root),
        backup_outcome: Some(Outcome::Complete),
        scratch: ScratchKind::Embedded,
        scratch_version: None,
        signer: SignerState::Unsigned,
        started: at(second),
        finished: at(second),
        result,
        checks: Vec::new(),
        not_judged: Vec::new(),
        objects_restored: 1,
        rto_seconds: None,
        rpo_seconds: None,
        tool_version: "0".into(),
    }
}

impl Shelf {
    async fn put_verdict(&self, root: Digest, verdict: &Verdict, key: Option<&SigningKey>) {
        catalog::put_evidence(&self.repository, root, verdict, key).await.unwrap();
    }

    async fn put_document(&self, root: Digest, name: &str, document: &[u8]) {
        self.repository.put_sidecar(&format!("evidence/{root}/{name}"), document).await.unwrap();
    }

    async fn standing(&self, root: Digest) -> String {
        standing(&self.repository, root, &self.trust()).await.unwrap().to_string()
    }
}

#[tokio::test]
async fn a_backup_is_untested_until_a_verdict_is_kept_and_then_the_newest_counts() {
    let shelf = Shelf::new().await;
    let root = shelf.put("one", "shop", 1).await.root;
    let key = Some(&shelf.key);
    assert_eq!(standing(&shelf.repository, root, &shelf.trust()).await.unwrap(), Standing::Untested);
    let proven = verdict(root, TestResult::Proven, 10);
    shelf.put_verdict(root, &proven, key).await;
    let signer = SignerState::Trusted(shelf.key.public().fingerprint());
    let expected = Standing::Proven { verdict: Box::new(proven), signer };
    assert_eq!(standing(&shelf.repository, root, &shelf.trust()).await.unwrap(), expected);
    shelf.put_verdict(root, &verdict(root, TestResult::Failed, 30), key).await;
    assert_eq!(shelf.standing(root).await, "Failed");
    // written later, but the test ended before
    shelf.put_verdict(root, &verdict(root, TestResult::Proven, 20), key).await;
    assert_eq!(shelf.standing(root).await, "Failed");
    shelf.put_verdict(root, &verdict(root, TestResult::Proven, 40), key).await;
    assert_eq!(shelf.standing(root).await, "Proven");
    let all = catalog::evidence(&shelf.repository, root, &shelf.trust()).await.unwrap();
    let ends: Vec<_> = all.iter().map(|(verdict, _)| verdict.finished.as_second()).collect();
    assert_eq!(ends, [10, 20, 30, 40]);
}

#[tokio::test]
async fn an_old_verdict_under_a_newer_name_is_no_newer() {
    let shelf = Shelf::new().await;
    let root = shelf.put("one", "shop", 1).await.root;
    shelf.put_verdict(root, &verdict(root, TestResult::Proven, 10), Some(&shelf.key)).await;
    let path = shelf.repository.list_sidecars("evidence/").await.unwrap().remove(0);
    let old = shelf.repository.get_sidecar(&path).await.unwrap();
    shelf.put_verdict(root, &verdict(root, TestResult::Failed, 20), Some(&shelf.key)).await;
    shelf.put_document(root, "99999999999999999999", &old).await;
    assert_eq!(shelf.standing(root).await, "Failed");
}

#[tokio::test]
async fn evidence_of_a_key_that_is_not_pinned_is_not_believed_where_one_is() {
    let shelf = Shelf::new().await;
    let root = shelf.put("one", "shop", 1).await.root;
    shelf.put_verdict(root, &verdict(root, TestResult::Failed, 10), Some(&shelf.key)).await;
    let stranger = SigningKey::generate();
    shelf.put_verdict(root, &verdict(root, TestResult::Proven, 20), Some(&stranger)).await;
    assert_eq!(shelf.standing(root).await, "Failed");
    let no_key = standing(&shelf.repository, root, &Trust::default()).await.unwrap().to_string();
    assert_eq!(no_key, format!("Proven (unverified signer {})", stranger.public().fingerprint()));
}

#[tokio::test]
async fn evidence_whose_signature_does_not_fit_is_not_believed() {
    let shelf = Shelf::new().await;
    let root = shelf.put("one", "shop", 1).await.root;
    let text = serde_json::to_string(&verdict(root, TestResult::Proven, 10)).unwrap();
    let document = |domain, signed: &str| {
        let signature = serde_json::to_value(shelf.key.sign(domain, &Id::of(signed.as_bytes()))).unwrap();
        serde_json::to_vec(&Evidence { verdict: text.clone(), signature: Some(signature) }).unwrap()
    };
    shelf.put_document(root, "edited", &document(Domain::Evidence, &text.replace("proven", "failed"))).await;
    shelf.put_document(root, "manifest", &document(Domain::Manifest, &text)).await;
    assert_eq!(shelf.standing(root).await, "Untested");
    assert_eq!(standing(&shelf.repository, root, &Trust::default()).await.unwrap(), Standing::Untested);
    shelf.put_document(root, "good", &document(Domain::Evidence, &text)).await;
    assert_eq!(shelf.standing(root).await, "Proven");
}

#[tokio::test]
async fn evidence_about_another_backup_is_not_believed() {
    let shelf = Shelf::new().await;
    let one = shelf.put("one", "shop", 1).await.root;
    let other = shelf.put("other", "shop", 2).await.root;
    // beside the one, about the other
    shelf.put_verdict(one, &verdict(other, TestResult::Proven, 10), Some(&shelf.key)).await;
    let mut about_none = verdict(one, TestResult::Proven, 11);
    about_none.root = None;
    shelf.put_verdict(one, &about_none, Some(&shelf.key)).await;
    assert_eq!((shelf.standing(one).await.as_str(), shelf.standing(other).await.as_str()), ("Untested", "Untested"));
    shelf.put_verdict(other, &verdict(other, TestResult::Proven, 12), Some(&shelf.key)).await;
    assert_eq!((shelf.standing(one).await.as_str(), shelf.standing(other).await.as_str()), ("Untested", "Proven"));
}

#[tokio::test]
async fn evidence_that_cannot_be_read_proves_nothing_and_hides_nothing() {
    let shelf = Shelf::new().await;
    let root = shelf.put("one", "shop", 1).await.root;
    shelf.put_document(root, "90000000000000000000", b"no document").await;
    let nonsense = Evidence { verdict: "{}".into(), signature: None };
    shelf.put_document(root, "90000000000000000001", &serde_json::to_vec(&nonsense).unwrap()).await;
    assert_eq!(shelf.standing(root).await, "Untested");
    shelf.put_verdict(root, &verdict(root, TestResult::Proven, 10), Some(&shelf.key)).await;
    assert_eq!(shelf.standing(root).await, "Proven");
    // a damaged file, not only a document that makes no sense
    shelf.put_verdict(root, &verdict(root, TestResult::Failed, 20), Some(&shelf.key)).await;
    let path = Path::from(format!("stillpoint/evidence/{root}/{:020}", 20_000_000));
    let mut bytes = shelf.objects.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    shelf.objects.put(&path, bytes.into()).await.unwrap();
    assert_eq!(shelf.standing(root).await, "Proven");
}

#[tokio::test]
async fn unsigned_evidence_says_so() {
    let shelf = Shelf::new().await;
    let root = shelf.put("one", "shop", 1).await.root;
    shelf.put_verdict(root, &verdict(root, TestResult::Proven, 10), None).await;
    assert_eq!(shelf.standing(root).await, "Proven (unsigned)");
}
