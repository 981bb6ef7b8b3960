//! Restore tests of a good backup and of damaged ones: each damage is found and named by the check that is meant to
//! find it, and by no other.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Contents, GOOD, Lab, assert_failed_only, assert_names_only, assert_proven};
use serde_json::json;
use stillpoint_api::{
    CheckKind, Judgement, ScratchKind, SignerState, TestResult,
    manifest::{MANIFEST_FILE, RESOURCES_FOLDER, SIGNATURE_FILE},
};
use stillpoint_catalog::{self as catalog, BACKUP_TAG};
use stillpoint_repository::{
    Node, SnapshotMeta, Tree,
    signing::{SigningKey, Trust},
};
use stillpoint_verifier::{self as verifier, Error, Progress, TestRequest, VolumeTests};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_good_backup_and_a_faithful_copy_of_it_are_proven() {
    let lab = Lab::new().await;
    let verdict = lab.test(GOOD).await;
    assert_proven(&verdict);
    assert!(matches!(verdict.signer, SignerState::Trusted(_)));
    assert!(verdict.objects_restored >= 12, "{}", verdict.objects_restored);
    assert!(verdict.rto_seconds.is_some() && verdict.rpo_seconds.is_some());
    assert!(verdict.scratch_version.is_some());
    assert!(!verdict.not_judged.is_empty());
    lab.doctored("copy", |_| {}).await;
    assert_proven(&lab.test("copy").await);
}

#[tokio::test]
async fn an_object_dropped_from_its_file_is_found_by_the_counts() {
    let lab = Lab::with_control().await;
    lab.doctored("doctored", |contents| contents.drop_object("configmaps/shop/unused")).await;
    let verdict = lab.test("doctored").await;
    let check = assert_failed_only(&verdict, CheckKind::Counts);
    assert_names_only(check, "configmaps.core", "the backup holds");
}

#[tokio::test]
async fn one_bit_flipped_in_any_pack_is_found_by_integrity() {
    let lab = Lab::new().await;
    let packs = lab.packs().await;
    assert!(packs.len() >= 2, "data and trees are in packs of their own");
    for pack in packs {
        lab.flip(&pack).await;
        let verdict = lab.test(GOOD).await;
        let check = assert_failed_only(&verdict, CheckKind::Integrity);
        assert!(check.findings.iter().any(|f| f.message.contains(pack.filename().unwrap())), "{check:#?}");
        let tried = verdict.check(CheckKind::Accepted).unwrap();
        assert_eq!(tried.judgement, Judgement::NotJudged, "a damaged backup is not restored");
        lab.flip(&pack).await;
        assert_proven(&lab.test(GOOD).await);
    }
}

#[tokio::test]
async fn a_definition_left_out_is_found_by_the_references() {
    let lab = Lab::with_control().await;
    let definition = "customresourcedefinitions.apiextensions.k8s.io/orders.shop.example.com";
    lab.doctored("doctored", |contents| contents.forget_object(definition)).await;
    let verdict = lab.test("doctored").await;
    let check = assert_failed_only(&verdict, CheckKind::References);
    assert_names_only(check, definition, "no server takes the 2 objects");
}

#[tokio::test]
async fn a_secret_that_a_pod_needs_left_out_is_found_by_the_references() {
    let lab = Lab::with_control().await;
    lab.doctored("doctored", |contents| contents.forget_object("secrets/shop/token")).await;
    let verdict = lab.test("doctored").await;
    let check = assert_failed_only(&verdict, CheckKind::References);
    let subjects: Vec<_> = check.findings.iter().map(|finding| finding.subject.as_str()).collect();
    assert_eq!(subjects, ["deployments.apps/shop/web", "pods.core/shop/web-1-a", "replicasets.apps/shop/web-1"]);
    let path = "spec.containers[0].env[0].valueFrom.secretKeyRef.name";
    assert!(check.findings.iter().all(|finding| finding.message.contains("secrets.core/shop/token")), "{check:#?}");
    assert!(check.findings[1].message.contains(path), "{check:#?}");
}

#[tokio::test]
async fn an_object_whose_owner_is_gone_is_found_by_the_references() {
    let lab = Lab::with_control().await;
    lab.doctored("doctored", |contents| contents.forget_object("deployments.apps/shop/web")).await;
    let verdict = lab.test("doctored").await;
    let check = assert_failed_only(&verdict, CheckKind::References);
    assert_names_only(check, "replicasets.apps/shop/web-1", "its owner deployments.apps/shop/web");
}

#[tokio::test]
async fn an_object_that_the_server_refuses_is_found_by_accepting() {
    let lab = Lab::with_control().await;
    let break_it = |contents: &mut Contents| {
        contents.object("deployments.apps/shop/web")["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    };
    lab.doctored("doctored", break_it).await;
    let verdict = lab.test("doctored").await;
    let check = assert_failed_only(&verdict, CheckKind::Accepted);
    assert_names_only(check, "deployments.apps/shop/web", "selector");
}

#[tokio::test]
async fn an_edited_manifest_is_found_by_the_signature() {
    let lab = Lab::with_control().await;
    let edited = {
        let mut manifest = lab.contents().await.manifest;
        manifest.backup.name = "edited".into();
        serde_json::to_vec_pretty(&manifest).unwrap()
    };
    commit_with_the_signature_of_the_good_one(&lab, &edited).await;
    let verdict = lab.test("edited").await;
    assert_eq!(verdict.signer, SignerState::Invalid);
    let check = assert_failed_only(&verdict, CheckKind::Signature);
    assert_names_only(check, "manifest.sig", "not the one that was signed");
    let without_a_key = lab.test_with("edited", Trust::default()).await.unwrap();
    assert_failed_only(&without_a_key, CheckKind::Signature);
}

/// Commits a snapshot of the good backup's resources and signature beside another manifest.
async fn commit_with_the_signature_of_the_good_one(lab: &Lab, manifest: &[u8]) {
    let good = catalog::find(&lab.repository, GOOD, &lab.trust()).await.unwrap();
    let snapshot = lab.repository.snapshot(&good.snapshot).await.unwrap();
    let tree = lab.repository.reader().await.unwrap().tree(&snapshot.tree).await.unwrap();
    let kept = [RESOURCES_FOLDER, SIGNATURE_FILE].map(|name| tree.get(name).unwrap().clone());
    let writer = lab.repository.writer().await.unwrap();
    let mut nodes = vec![Node::file(MANIFEST_FILE, writer.bytes(manifest).await.unwrap(), snapshot.time)];
    nodes.extend(kept);
    let meta = SnapshotMeta {
        tree: writer.tree(Tree::new(nodes).unwrap()).await.unwrap(),
        hostname: snapshot.hostname,
        paths: snapshot.paths,
        tags: vec![BACKUP_TAG.into(), "stillpoint-name:edited".into()],
        time: snapshot.time,
        program_version: None,
        summary: None,
    };
    writer.commit(meta).await.unwrap();
}

#[tokio::test]
async fn a_manifest_signed_again_by_another_key_is_found_by_the_signature() {
    let lab = Lab::with_control().await;
    let mut contents = lab.contents().await;
    contents.forget_object("configmaps/shop/unused");
    lab.write("resigned", contents, Some(&SigningKey::generate())).await;
    let verdict = lab.test("resigned").await;
    assert!(matches!(verdict.signer, SignerState::Untrusted(_)));
    let check = assert_failed_only(&verdict, CheckKind::Signature);
    assert_names_only(check, "manifest.sig", "not among the pinned keys");
    assert_eq!(verdict.objects_restored, 0);
}

#[tokio::test]
async fn without_a_pinned_key_a_backup_can_be_proven_but_its_signer_is_not_judged() {
    let lab = Lab::new().await;
    let verdict = lab.test_with(GOOD, Trust::default()).await.unwrap();
    assert!(matches!(verdict.signer, SignerState::Unverified(_)));
    assert_eq!(verdict.check(CheckKind::Signature).unwrap().judgement, Judgement::NotJudged);
    assert_eq!(verdict.result, TestResult::Proven);
}

#[tokio::test]
async fn an_unsigned_backup_fails_only_where_a_key_is_pinned() {
    let lab = Lab::new().await;
    lab.write("unsigned", lab.contents().await, None).await;
    let check = assert_failed_only(&lab.test("unsigned").await, CheckKind::Signature).clone();
    assert_names_only(&check, "manifest.sig", "no signature");
    let verdict = lab.test_with("unsigned", Trust::default()).await.unwrap();
    assert_eq!(verdict.check(CheckKind::Signature).unwrap().judgement, Judgement::NotJudged);
    assert_eq!((verdict.result, verdict.signer), (TestResult::Proven, SignerState::Unsigned));
}

#[tokio::test]
async fn a_pod_that_has_ended_needs_nothing() {
    let lab = Lab::new().await;
    lab.doctored("ended", |contents| {
        let pod = contents.object("pods/shop/web-1-a");
        pod["status"] = json!({"phase": "Succeeded"});
        pod["spec"]["volumes"] = json!([{"name": "gone", "secret": {"secretName": "long-gone"}}]);
    })
    .await;
    assert_proven(&lab.test("ended").await);
}

#[tokio::test]
async fn a_scope_of_one_namespace_is_proven_without_the_rest_of_the_cluster() {
    let scope = stillpoint_api::Scope { include_namespaces: vec!["shop".into()], ..Default::default() };
    let lab = Lab::with_scope(scope).await;
    assert_proven(&lab.test(GOOD).await);
}

#[tokio::test]
async fn no_such_backup_is_an_error_and_no_verdict() {
    let lab = Lab::new().await;
    let error = lab.test_with("absent", lab.trust()).await.unwrap_err();
    assert!(matches!(error, Error::Backup(catalog::Error::NotFound { .. })), "{error}");
}

#[tokio::test]
async fn a_cancelled_test_has_no_verdict_whenever_it_is_cancelled() {
    let lab = Lab::new().await;
    for stage in 0..4 {
        let cancel = CancellationToken::new();
        let request = TestRequest {
            scratch: ScratchKind::Embedded,
            trust: lab.trust(),
            volumes: VolumeTests::default(),
            cancel: cancel.clone(),
        };
        let (sender, mut progress) = watch::channel(Progress::default());
        let canceller = async {
            let reached = |progress: &Progress| match (stage, progress) {
                (0, _) | (1, Progress::Reading { .. }) | (2, Progress::Restoring(_)) => true,
                (_, progress) => matches!(progress, Progress::Comparing { .. }),
            };
            let _ = progress.wait_for(reached).await;
            cancel.cancel();
        };
        let (tested, ()) = tokio::join!(verifier::test(&lab.repository, GOOD, &request, sender), canceller);
        assert!(matches!(tested, Err(Error::Cancelled)), "stage {stage}: {tested:?}");
    }
}
