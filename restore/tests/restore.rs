//! Backups of one embedded cluster restored into another: what comes back, what is kept, what is refused and named.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use common::{Backups, Cluster, GOOD, Objects, of_core, owned_by, site_definition, workload};
use serde_json::{Value, json};
use stillpoint_api::{
    Scope, SignerState,
    manifest::{MANIFEST_FILE, RESOURCES_FOLDER, SIGNATURE_FILE},
};
use stillpoint_catalog::{self as catalog, BACKUP_TAG, Backup};
use stillpoint_objects::{diff::diff, normalise::normalise, order::Level, sanitise::Mapping};
use stillpoint_repository::{
    Id, Node, SnapshotMeta, Tree,
    signing::{Domain, SigningKey, Trust},
};
use stillpoint_restore::{Applied, Error, Foresight, Plan, RestoreRequest, dry_run};

const SITES: &str = "sites.shop.example.com";
const DEFINITION: &str = "customresourcedefinitions.apiextensions.k8s.io/sites.shop.example.com";

fn request() -> RestoreRequest {
    RestoreRequest::default()
}

fn object<'a>(objects: &'a Objects, name: &str) -> &'a Value {
    &objects.get(name).unwrap_or_else(|| panic!("{name} is not there: {:?}", objects.keys())).1
}

fn uid<'a>(objects: &'a Objects, name: &str) -> &'a str {
    object(objects, name)["metadata"]["uid"].as_str().unwrap()
}

fn owner_uid<'a>(objects: &'a Objects, name: &str) -> &'a str {
    let owners = object(objects, name)["metadata"]["ownerReferences"].as_array().unwrap();
    assert_eq!(owners.len(), 1, "{name}");
    owners[0]["uid"].as_str().unwrap()
}

fn has_owners(objects: &Objects, name: &str) -> bool {
    object(objects, name)["metadata"].get("ownerReferences").is_some()
}

/// Nothing was refused, changed beyond the rules, or found different.
#[track_caller]
fn assert_clean(applied: &Applied) {
    assert!(applied.refused.is_empty(), "{:?}", applied.refused);
    assert!(applied.warnings.is_empty(), "{:?}", applied.warnings);
    let differing: Vec<_> = applied.kept.iter().filter(|kept| !kept.differs.is_empty()).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

/// Each warning or refusal: of which object, and its words.
fn named(of: impl IntoIterator<Item = (impl ToString, String)>) -> BTreeMap<String, String> {
    of.into_iter().map(|(object, words)| (object.to_string(), words)).collect()
}

fn warnings(applied: &Applied) -> BTreeMap<String, String> {
    named(applied.warnings.iter().map(|warning| (&warning.object, warning.message.clone())))
}

fn refusals(applied: &Applied) -> BTreeMap<String, String> {
    named(applied.refused.iter().map(|refused| (&refused.object, refused.reason.clone())))
}

/// The index of the stage that creates an object.
#[track_caller]
fn stage(plan: &Plan, name: &str) -> usize {
    let creates = |of: &stillpoint_restore::Stage| of.steps.iter().any(|step| step.object.to_string() == name);
    let found: Vec<_> = (0..plan.stages.len()).filter(|&index| creates(&plan.stages[index])).collect();
    assert_eq!(found.len(), 1, "{name} is created by one stage");
    found[0]
}

#[tokio::test]
async fn a_backup_restored_into_an_empty_cluster_gives_back_every_object() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (_, backup) = Backups::of(&source).await;
    let before: BTreeSet<_> = target.objects().await.into_keys().collect();
    let (plan, applied) = target.restore(&backup, &request()).await.unwrap();
    assert_clean(&applied);
    let (captured, restored) = (source.objects().await, target.objects().await);
    assert!(captured.keys().all(|name| restored.contains_key(name)), "{:?}", restored.keys());
    assert_eq!(captured.len(), restored.len());
    for (name, (of, object)) in &captured {
        let changes = diff(&normalise(of, object.clone()), &normalise(of, restored[name].1.clone()));
        assert!(changes.is_empty(), "{name}: {changes:?}");
    }
    // what was there is what every cluster has; all else was created, and each of it counted
    let created = captured.keys().filter(|name| !before.contains(*name) && !made_by_cluster(name)).count();
    assert_eq!(applied.created, created as u64);
    assert_eq!(applied.created + applied.kept.len() as u64, plan.objects() as u64);
    let left_out: Vec<_> = plan.left_out.iter().map(|left| left.object.to_string()).collect();
    assert!(!left_out.is_empty() && left_out.iter().all(|name| made_by_cluster(name)), "{left_out:?}");
}

/// What a cluster makes in every namespace without being asked.
fn made_by_cluster(name: &str) -> bool {
    name.ends_with("/kube-root-ca.crt") || name.ends_with("serviceaccounts.core/shop/default")
}

#[tokio::test]
async fn what_is_owned_comes_back_with_the_new_uids_of_its_owners() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (_, backup) = Backups::of(&source).await;
    let (plan, applied) = target.restore(&backup, &request()).await.unwrap();
    assert_clean(&applied);
    let (old, new) = (source.objects().await, target.objects().await);
    for (owned, owner) in [
        ("replicasets.apps/shop/web-1", "deployments.apps/shop/web"),
        ("pods.core/shop/web-1-a", "replicasets.apps/shop/web-1"),
        ("deployments.apps/shop/blog", "sites.shop.example.com/shop/blog"),
    ] {
        assert_eq!(owner_uid(&new, owned), uid(&new, owner), "{owned}");
        assert_ne!(owner_uid(&new, owned), owner_uid(&old, owned), "{owned}");
        assert!(stage(&plan, owner) < stage(&plan, owned), "{owner} before {owned}");
    }
}

#[tokio::test]
async fn an_owner_outside_the_backup_is_dropped_with_a_warning_that_names_it() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let scope = Scope { exclude_resources: vec!["deployments.apps".into()], ..Scope::default() };
    let (_, backup) = Backups::of_scope(&source, scope).await;
    let (plan, applied) = target.restore(&backup, &request()).await.unwrap();
    let expected = "its owner Deployment web is not restored: the owner reference is dropped, or it would be collected";
    let expected = BTreeMap::from([("replicasets.apps/shop/web-1".to_owned(), expected.to_owned())]);
    assert_eq!(warnings(&applied), expected);
    assert_eq!(plan.warnings, applied.warnings, "the plan says it before anything is written");
    let restored = target.objects().await;
    assert!(!has_owners(&restored, "replicasets.apps/shop/web-1"));
    assert_eq!(owner_uid(&restored, "pods.core/shop/web-1-a"), uid(&restored, "replicasets.apps/shop/web-1"));
}

#[tokio::test]
async fn an_owner_that_exists_gives_its_uid() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (_, backup) = Backups::of(&source).await;
    target.namespace("shop").await;
    let existing = target.create("deployments.apps", workload("Deployment", "shop", "web")).await;
    let (_, applied) = target.restore(&backup, &request()).await.unwrap();
    assert_clean(&applied);
    assert!(applied.kept.iter().any(|kept| kept.object.to_string() == "deployments.apps/shop/web"));
    let restored = target.objects().await;
    assert_eq!(owner_uid(&restored, "replicasets.apps/shop/web-1"), existing["metadata"]["uid"].as_str().unwrap());
}

#[tokio::test]
async fn what_exists_is_kept_untouched_and_named_where_it_differs() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (_, backup) = Backups::of(&source).await;
    target.namespace("shop").await;
    target.create("configmaps", of_core("ConfigMap", "shop", "settings", "data", json!({"colour": "red"}))).await;
    target.create("secrets", of_core("Secret", "shop", "token", "data", json!({"token": "b3RoZXI="}))).await;
    let before = target.objects().await;
    let (_, applied) = target.restore(&backup, &request()).await.unwrap();
    let after = target.objects().await;
    for (name, (_, existing)) in &before {
        assert_eq!(object(&after, name), existing, "{name}");
    }
    let differing = applied.kept.iter().filter(|kept| !kept.differs.is_empty());
    let differing: BTreeMap<_, _> = differing.map(|kept| (kept.object.to_string(), &kept.differs)).collect();
    assert_eq!(differing.keys().collect::<Vec<_>>(), ["configmaps.core/shop/settings", "secrets.core/shop/token"]);
    let colour = &differing["configmaps.core/shop/settings"];
    assert_eq!(colour.len(), 1, "{colour:?}");
    assert_eq!(
        (colour[0].path.as_str(), colour[0].before.as_ref(), colour[0].after.as_ref()),
        ("data.colour", Some(&json!("blue")), Some(&json!("red")))
    );
    let token = &differing["secrets.core/shop/token"];
    assert_eq!(token.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), ["data.token"]);
    let printed = serde_json::to_string(&applied).unwrap();
    for value in ["c2VjcmV0", "b3RoZXI=", "secret\"", "other\""] {
        assert!(!printed.contains(value), "{value} is in {printed}");
    }
}

#[tokio::test]
async fn a_restore_that_is_run_again_creates_nothing() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (_, backup) = Backups::of(&source).await;
    let (_, first) = target.restore(&backup, &request()).await.unwrap();
    assert!(first.created > 0);
    let revision = target.server.revision();
    let (plan, second) = target.restore(&backup, &request()).await.unwrap();
    assert_eq!((second.created, second.kept.len()), (0, plan.objects()));
    assert_clean(&second);
    assert_eq!(target.server.revision(), revision);
}

#[tokio::test]
async fn a_mapping_moves_a_namespace_and_the_subjects_that_lie_in_it() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (_, backup) = Backups::of(&source).await;
    let namespaces = BTreeMap::from([("shop".to_owned(), "shop2".to_owned())]);
    let request = RestoreRequest { mapping: Mapping { namespaces, ..Mapping::default() }, ..request() };
    let (plan, applied) = target.restore(&backup, &request).await.unwrap();
    assert_clean(&applied);
    let restored = target.objects().await;
    assert!(restored.keys().all(|name| !name.contains("/shop/") && name != "namespaces.core/shop"));
    for name in source.objects().await.into_keys().filter(|name| name.contains("/shop/")) {
        object(&restored, &name.replace("/shop/", "/shop2/"));
    }
    object(&restored, "namespaces.core/shop2");
    let binding = object(&restored, "rolebindings.rbac.authorization.k8s.io/shop2/web");
    assert_eq!(binding["subjects"][0]["namespace"], "shop2");
    assert_eq!(owner_uid(&restored, "pods.core/shop2/web-1-a"), uid(&restored, "replicasets.apps/shop2/web-1"));
    let steps = plan.stages.iter().flat_map(|stage| &stage.steps);
    let moved: Vec<_> = steps.filter_map(|step| Some((step.object.to_string(), step.becomes.as_ref()?))).collect();
    assert!(moved.iter().any(
        |(object, becomes)| object == "pods.core/shop/web-1-a" && becomes.to_string() == "pods.core/shop2/web-1-a"
    ));
    assert!(moved.iter().all(|(_, becomes)| becomes.to_string().contains("/shop2")), "{moved:?}");
}

#[tokio::test]
async fn definitions_come_first_then_namespaces_and_config_before_what_reads_it() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (_, backup) = Backups::of(&source).await;
    let plan = target.plan(&backup, &request()).await.unwrap();
    let expected = [
        DEFINITION,
        "namespaces.core/shop",
        "serviceaccounts.core/shop/web",
        "secrets.core/shop/token",
        "services.core/shop/web",
        "deployments.apps/shop/web",
        "replicasets.apps/shop/web-1",
        "pods.core/shop/web-1-a",
        "sites.shop.example.com/shop/blog",
        "deployments.apps/shop/blog",
    ];
    let stages: Vec<_> = expected.iter().map(|name| stage(&plan, name)).collect();
    assert!(stages.is_sorted_by(|earlier, later| earlier < later), "{stages:?}");
    assert_eq!(stage(&plan, "configmaps.core/shop/settings"), stage(&plan, "secrets.core/shop/token"));
    assert_eq!(plan.stages[0].level, Level::CustomResourceDefinitions);
    assert!(plan.stages.is_sorted_by_key(|stage| (stage.level, stage.depth)));
}

#[tokio::test]
async fn custom_objects_without_a_definition_are_refused_by_name_before_anything_is_written() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let scope = Scope { exclude_resources: vec!["customresourcedefinitions*".into()], ..Scope::default() };
    let (_, backup) = Backups::of_scope(&source, scope).await;
    let (plan, applied) = target.restore(&backup, &request()).await.unwrap();
    assert_eq!(plan.refused, applied.refused);
    let words = format!("the target does not serve {SITES}, and the backup holds no definition of it");
    assert_eq!(refusals(&applied), BTreeMap::from([(format!("{SITES}/shop/blog"), words)]));
    assert!(warnings(&applied)["deployments.apps/shop/blog"].contains("Site blog"), "{applied:?}");
    assert!(!has_owners(&target.objects().await, "deployments.apps/shop/blog"));
}

#[tokio::test]
async fn an_object_that_the_server_refuses_is_named_in_its_words_and_the_rest_is_restored() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (backups, good) = Backups::of(&source).await;
    let refused = "deployments.apps/shop/web";
    let break_it = |value: &mut Value| value["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    let backup = backups.doctored(&good, refused, break_it).await;
    let (plan, applied) = target.restore(&backup, &request()).await.unwrap();
    let words = refusals(&applied);
    assert_eq!(words.keys().collect::<Vec<_>>(), [refused]);
    assert!(words[refused].contains(r#"Deployment.apps "web" is invalid: "#), "{words:?}");
    assert!(words[refused].contains("`selector` does not match template `labels`"), "{words:?}");
    let expected = "its owner Deployment web was not created: the owner reference is dropped".to_owned();
    assert_eq!(warnings(&applied), BTreeMap::from([("replicasets.apps/shop/web-1".to_owned(), expected)]));
    let restored = target.objects().await;
    assert!(!restored.contains_key(refused));
    assert!(!has_owners(&restored, "replicasets.apps/shop/web-1"));
    assert_eq!(applied.created + applied.kept.len() as u64 + 1, plan.objects() as u64);
    // asked without writing, the server says the same
    let foreseen = dry_run(&target.client, &backup, &plan).await.unwrap();
    let foreseen = foreseen.iter().find(|foreseen| foreseen.object.to_string() == refused).unwrap();
    assert_eq!(foreseen.foresight, Foresight::Refused(words[refused].clone()));
}

#[tokio::test]
async fn a_definition_that_the_server_refuses_takes_only_its_objects_with_it() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (backups, good) = Backups::of(&source).await;
    let backup = backups.doctored(&good, DEFINITION, |value| value["spec"]["scope"] = "Sideways".into()).await;
    let restored = async { target.restore(&backup, &request()).await };
    let (_, applied) = tokio::time::timeout(Duration::from_secs(30), restored).await.unwrap().unwrap();
    let refused = refusals(&applied);
    assert_eq!(refused.keys().collect::<Vec<_>>(), [DEFINITION, "sites.shop.example.com/shop/blog"]);
    assert!(refused[DEFINITION].contains("spec.scope"), "{refused:?}");
    object(&target.objects().await, "deployments.apps/shop/blog");
}

#[tokio::test]
async fn a_definition_that_exists_in_another_version_is_kept_and_only_its_objects_are_refused() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (_, backup) = Backups::of(&source).await;
    target.create("customresourcedefinitions.apiextensions.k8s.io", site_definition("v2")).await;
    let restored = async { target.restore(&backup, &request()).await };
    let (_, applied) = tokio::time::timeout(Duration::from_secs(30), restored).await.unwrap().unwrap();
    let words = format!("the target serves {SITES} in v2, the backup holds it in v1");
    assert_eq!(refusals(&applied), BTreeMap::from([(format!("{SITES}/shop/blog"), words)]));
    assert!(applied.kept.iter().any(|kept| kept.object.to_string() == DEFINITION && !kept.differs.is_empty()));
    object(&target.objects().await, "deployments.apps/shop/blog");
}

#[tokio::test]
async fn a_definition_that_a_custom_object_owns_comes_after_it_and_before_its_own_objects() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill_platform().await;
    let (_, backup) = Backups::of(&source).await;
    let restored = async { target.restore(&backup, &request()).await };
    let (plan, applied) = tokio::time::timeout(Duration::from_secs(30), restored).await.unwrap().unwrap();
    assert_clean(&applied);
    let chain = ["platforms", "platforms.shop.example.com/main", "sites", "sites.shop.example.com/shop/blog"];
    let chain = chain.map(|name| if name.contains('.') { name.to_owned() } else { definition(name) });
    assert!(chain.is_sorted_by_key(|name| stage(&plan, name)), "{:?}", chain.each_ref().map(|name| stage(&plan, name)));
    let restored = target.objects().await;
    object(&restored, "sites.shop.example.com/shop/blog");
    assert_eq!(owner_uid(&restored, &definition("sites")), uid(&restored, "platforms.shop.example.com/main"));
}

fn definition(plural: &str) -> String {
    format!("customresourcedefinitions.apiextensions.k8s.io/{plural}.shop.example.com")
}

/// Refused before the first write.
async fn assert_not_trusted(target: &Cluster, backup: &Backup, request: &RestoreRequest) {
    let revision = target.server.revision();
    let error = target.restore(backup, request).await.unwrap_err();
    assert!(matches!(&error, Error::NotTrusted { signer, .. } if *signer == backup.signer), "{error}");
    assert_eq!(target.server.revision(), revision);
}

#[tokio::test]
async fn a_backup_that_is_not_trusted_is_refused_before_the_first_write_unless_it_is_accepted() {
    let source = Cluster::start().await;
    source.fill().await;
    let backups = Backups::new().await;
    backups.take(&source, "unsigned", Scope::default(), None).await;
    backups.take(&source, "strange", Scope::default(), Some(&SigningKey::generate())).await;
    let (unsigned, strange) = (backups.find("unsigned").await.unwrap(), backups.find("strange").await.unwrap());
    let unpinned = catalog::find(&backups.repository, "strange", &Trust::default()).await.unwrap();
    assert_eq!(unsigned.signer, SignerState::Unsigned);
    assert!(matches!(strange.signer, SignerState::Untrusted(_)));
    assert!(matches!(unpinned.signer, SignerState::Unverified(_)));
    let accepting = RestoreRequest { accept_untrusted: true, ..request() };
    for backup in [unsigned, strange, unpinned] {
        let target = Cluster::start().await;
        assert_not_trusted(&target, &backup, &request()).await;
        let (_, applied) = target.restore(&backup, &accepting).await.unwrap();
        assert_clean(&applied);
        assert!(applied.created > 0);
    }
}

#[tokio::test]
async fn a_backup_whose_signature_does_not_fit_is_never_restored() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (backups, good) = Backups::of(&source).await;
    let mut manifest = good.manifest.clone();
    manifest.backup.name = "forged".into();
    let writer = backups.repository.writer().await.unwrap();
    let time = manifest.finished;
    let bytes = writer.bytes(&serde_json::to_vec(&manifest).unwrap()).await.unwrap();
    let signature = serde_json::to_vec(&backups.key.sign(Domain::Manifest, &Id(good.root.0))).unwrap();
    let nodes = vec![
        Node::file(MANIFEST_FILE, bytes, time),
        Node::file(SIGNATURE_FILE, writer.bytes(&signature).await.unwrap(), time),
        Node::dir(RESOURCES_FOLDER, Id(manifest.trees.resources.0), time),
    ];
    let meta = SnapshotMeta {
        tree: writer.tree(Tree::new(nodes).unwrap()).await.unwrap(),
        hostname: "shop".into(),
        paths: vec!["/".into()],
        tags: vec![BACKUP_TAG.into(), "stillpoint-name:forged".into()],
        time,
        program_version: None,
        summary: None,
    };
    writer.commit(meta).await.unwrap();
    let forged = backups.find("forged").await.unwrap();
    assert_eq!(forged.signer, SignerState::Invalid);
    assert_not_trusted(&target, &forged, &RestoreRequest { accept_untrusted: true, ..request() }).await;
}

#[tokio::test]
async fn a_damaged_pack_is_found_before_the_first_write() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    let (backups, opened) = Backups::of(&source).await;
    let revision = target.server.revision();
    let mut found_by_the_plan = 0;
    let packs = backups.packs().await;
    assert!(packs.len() >= 2, "data and trees are in packs of their own");
    for pack in packs {
        backups.flip(&pack).await;
        let restored = async { target.restore(&backups.find(GOOD).await?, &request()).await };
        let error = restored.await.unwrap_err();
        assert!(matches!(error, Error::Backup(catalog::Error::Damaged { .. })), "{error}");
        // the same of a backup that was sound when it was opened
        found_by_the_plan += usize::from(target.plan(&opened, &request()).await.is_err());
        backups.flip(&pack).await;
    }
    assert!(found_by_the_plan > 0);
    assert_eq!(target.server.revision(), revision);
    assert_clean(&target.restore(&opened, &request()).await.unwrap().1);
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_tells_what_would_come() {
    let (source, target) = (Cluster::start().await, Cluster::start().await);
    source.fill().await;
    source.namespace("blog").await;
    let config = |name: &str| of_core("ConfigMap", "blog", name, "data", json!({"a": "b"}));
    let owner = source.create("configmaps", config("owner")).await;
    source.create("configmaps", owned_by(of_core("ConfigMap", "shop", "owned", "data", json!({})), &owner)).await;
    let (_, backup) = Backups::of(&source).await;
    target.namespace("shop").await;
    target.create("configmaps", of_core("ConfigMap", "shop", "settings", "data", json!({"colour": "red"}))).await;
    let revision = target.server.revision();
    let plan = target.plan(&backup, &request()).await.unwrap();
    let foreseen = dry_run(&target.client, &backup, &plan).await.unwrap();
    assert_eq!(target.server.revision(), revision);
    assert_eq!(foreseen.len(), plan.objects());
    let of = |name: &str| {
        let foreseen = foreseen.iter().find(|foreseen| foreseen.object.to_string() == name);
        foreseen.unwrap_or_else(|| panic!("{name}: {foreseen:?}")).foresight.clone()
    };
    for created in [DEFINITION, "namespaces.core/blog", "deployments.apps/shop/blog", "pods.core/shop/web-1-a"] {
        assert_eq!(of(created), Foresight::Created, "{created}");
    }
    for kept in ["namespaces.core/shop", "configmaps.core/shop/settings"] {
        assert_eq!(of(kept), Foresight::Kept, "{kept}");
    }
    let later = |what: &str| Foresight::NotAsked(format!("its {what} does not exist yet"));
    assert_eq!(of("sites.shop.example.com/shop/blog"), later("definition"));
    assert_eq!(of("configmaps.core/blog/owner"), later("namespace"));
    assert_eq!(of("configmaps.core/shop/owned"), Foresight::Created);
}
