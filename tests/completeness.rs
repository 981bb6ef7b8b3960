//! Nothing missing in silence: whatever is not in a backup is counted by a rule or named as a problem.
//!
//! Faults are made by a proxy before the embedded server, so that each strikes where it is meant to; real servers fail
//! in `cluster_completeness`.

#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{
    backups::{self, assert_counts_add_up, back_up, back_up_strictly, find, namespaces, record, subjects},
    cluster::{
        config_map, config_maps, create, create_all, create_config_maps, create_namespace, embedded, get, patch,
        secrets,
    },
    proxy::{Fault, Proxy, any_list, first_page, later_page},
};
use serde_json::{Value, json};
use stillpoint_agent::{self as agent, BackupRequest, Error};
use stillpoint_api::{
    ClusterResources, ExclusionRule, Manifest, Outcome, ProblemKind, Scope, VolumeData, VolumeIntent,
};
use stillpoint_repository::Store;
use tokio::sync::watch;

/// More than one page of a list.
const SOME: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn each_of_20000_objects_is_in_the_backup_once() {
    let cluster = embedded().await;
    create_namespace(&cluster.client, "proof").await;
    create_config_maps(&cluster.client, "proof", "many", 20_000, 20).await;
    let repository = backups::repository().await;
    let scope = Scope { include_resources: vec!["configmaps".to_owned()], ..namespaces(&["proof"]) };
    let report = back_up_strictly(&cluster.client, &repository, "many", scope).await.unwrap();

    // a namespace gets one of its own
    assert_eq!(record(&report.manifest, "configmaps.core").existed, Some(20_001));
    let held = backups::objects(&find(&repository, "many").await).await;
    let names: BTreeSet<_> = held.keys().map(|object| object.name.as_str()).collect();
    let missing: Vec<_> = (0..20_000).map(|n| format!("many-{n:05}")).filter(|name| !names.contains(&**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_counts_add_up(&find(&repository, "many").await).await;
}

/// Three namespaces with something of everything that a scope can leave out.
async fn populate(client: &kube::Client) {
    for namespace in ["shop-1", "shop-2", "other"] {
        create_namespace(client, namespace).await;
        let labelled = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
        let objects = [
            labelled("web", json!({"app": "web"})),
            labelled("db", json!({"app": "db"})),
            labelled("not-me", json!({"app": "web", "velero.io/exclude-from-backup": "true"})),
        ];
        create_all(client, &config_maps(namespace), objects.clone()).await;
        create_all(client, &secrets(namespace), objects).await;
        let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
        let service = create(client, &format!("/api/v1/namespaces/{namespace}/services"), &service).await;
        let owner = json!({"apiVersion": "v1", "kind": "Service", "name": "web", "uid": service["metadata"]["uid"]});
        let slice =
            json!({"metadata": {"name": "web-x", "ownerReferences": [owner]}, "addressType": "IPv4", "endpoints": []});
        create(client, &format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"), &slice).await;
        let lease = json!({"metadata": {"name": "leader"}});
        create(client, &format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"), &lease).await;
    }
    let class = json!({"metadata": {"name": "unused"}, "value": 7});
    create(client, "/apis/scheduling.k8s.io/v1/priorityclasses", &class).await;
}

/// The objects of a type that a backup with this scope holds, as `namespace/name`, and its manifest.
async fn held(client: &kube::Client, scope: Scope, resource: &str) -> (Vec<String>, Manifest) {
    let repository = backups::repository().await;
    let report = back_up_strictly(client, &repository, "scoped", scope).await.unwrap();
    let backup = find(&repository, "scoped").await;
    assert_counts_add_up(&backup).await;
    let held = backups::objects(&backup).await;
    let of_type = held.keys().filter(|object| object.resource.to_string() == resource);
    let name = |namespace: &Option<String>| namespace.as_deref().unwrap_or("-").to_owned();
    let names = of_type.map(|object| format!("{}/{}", name(&object.namespace), object.name)).collect();
    (names, report.manifest)
}

fn excluded(manifest: &Manifest, resource: &str, rule: &ExclusionRule) -> u64 {
    let excluded = &record(manifest, resource).excluded;
    excluded.iter().find(|exclusion| exclusion.rule == *rule).map_or(0, |exclusion| exclusion.objects)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_scope_leaves_out_is_counted_by_its_rule_and_all_adds_up() {
    let cluster = embedded().await;
    let client = &cluster.client;
    populate(client).await;
    let globs = |globs: &[&str]| globs.iter().map(|&glob| glob.to_owned()).collect::<Vec<_>>();
    let all = Scope { volumes: VolumeIntent::LeftOut, ..Scope::default() };

    let (names, manifest) = held(client, all.clone(), "secrets.core").await;
    assert_eq!(names, ["other/db", "other/web", "shop-1/db", "shop-1/web", "shop-2/db", "shop-2/web"]);
    assert_eq!(excluded(&manifest, "secrets.core", &ExclusionRule::ExcludeLabel), 3);
    assert_eq!(excluded(&manifest, "leases.coordination.k8s.io", &ExclusionRule::NotByDefault), 3);
    assert_eq!(excluded(&manifest, "endpointslices.discovery.k8s.io", &ExclusionRule::OwnedByService), 3);
    let live = get(client, "/api/v1/configmaps").await["items"].as_array().unwrap().len() as u64;
    assert_eq!(record(&manifest, "configmaps.core").existed, Some(live));
    assert_eq!(record(&manifest, "priorityclasses.scheduling.k8s.io").captured, 1);

    let scope = Scope { exclude_namespaces: globs(&["shop-2"]), ..namespaces(&["shop*"]) };
    let (names, manifest) = held(client, scope, "secrets.core").await;
    assert_eq!(names, ["shop-1/db", "shop-1/web"]);
    assert_eq!(excluded(&manifest, "priorityclasses.scheduling.k8s.io", &ExclusionRule::NotNeeded), 1);

    let scope = Scope { label_selector: Some("app in (web)".to_owned()), ..all.clone() };
    let (names, manifest) = held(client, scope, "secrets.core").await;
    assert_eq!(names, ["other/web", "shop-1/web", "shop-2/web"]);
    assert_eq!(excluded(&manifest, "secrets.core", &ExclusionRule::Selector), 3);

    let scope = Scope {
        include_resources: globs(&["leases", "secrets"]),
        cluster_resources: ClusterResources::None,
        ..all.clone()
    };
    let (names, manifest) = held(client, scope, "leases.coordination.k8s.io").await;
    assert_eq!(names, ["other/leader", "shop-1/leader", "shop-2/leader"]);
    assert_eq!(excluded(&manifest, "configmaps.core", &ExclusionRule::Resource), live);

    let scope = Scope { exclude_resources: globs(&["secret*"]), cluster_resources: ClusterResources::None, ..all };
    let (names, manifest) = held(client, scope, "secrets.core").await;
    assert!(names.is_empty(), "{names:?}");
    assert_eq!(excluded(&manifest, "secrets.core", &ExclusionRule::Resource), 9);
    assert_eq!(excluded(&manifest, "priorityclasses.scheduling.k8s.io", &ExclusionRule::ClusterScoped), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_without_data_degrade_by_name_unless_their_absence_is_meant() {
    let cluster = embedded().await;
    create_namespace(&cluster.client, "proof").await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claims = "/api/v1/namespaces/proof/persistentvolumeclaims";
    create(&cluster.client, claims, &json!({"metadata": {"name": "data-db-0"}, "spec": spec})).await;
    let repository = backups::repository().await;

    let wanted = Scope { volumes: VolumeIntent::Wanted, ..namespaces(&["proof"]) };
    let manifest = back_up(&cluster.client, &repository, "wanted", wanted.clone()).await.unwrap().manifest;
    assert_eq!(manifest.outcome, Outcome::Degraded);
    assert_eq!(subjects(&manifest, ProblemKind::Volume), ["persistentvolumeclaims.core/proof/data-db-0"]);
    let error = back_up_strictly(&cluster.client, &repository, "strict", wanted).await.unwrap_err();
    assert!(error.to_string().contains("data-db-0"), "{error}");

    let meant = namespaces(&["proof"]);
    let manifest = back_up(&cluster.client, &repository, "meant", meant).await.unwrap().manifest;
    assert_eq!((manifest.outcome, &manifest.volumes[0].data), (Outcome::Complete, &VolumeData::LeftOut));
    assert_eq!(backups::names(&repository).await, ["wanted", "meant"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_pass_cost_nothing_but_time() {
    let cluster = embedded().await;
    create_namespace(&cluster.client, "proof").await;
    create_config_maps(&cluster.client, "proof", "some", SOME, 20).await;
    create_all(&cluster.client, &secrets("proof"), (0..5).map(secret)).await;
    let repository = backups::repository().await;
    back_up_strictly(&cluster.client, &repository, "undisturbed", namespaces(&["proof"])).await.unwrap();

    let proxy = Proxy::before(&cluster.client).await;
    let refuse = |code, retry_after| Fault::Refuse { code, retry_after };
    proxy.strike(|target| target == "/version", 1, refuse(503, 0));
    proxy.strike(|target| target == "/apis", 2, Fault::CutShort);
    proxy.strike(any_list("namespaces"), 1, refuse(429, 1));
    proxy.strike(first_page("configmaps"), 2, refuse(429, 1));
    proxy.strike(later_page("configmaps"), 2, Fault::CutShort);
    proxy.strike(any_list("secrets"), 3, refuse(500, 0));
    proxy.strike(first_page("secrets"), 1, refuse(504, 0));
    let report = back_up_strictly(&proxy.client, &repository, "disturbed", namespaces(&["proof"])).await.unwrap();

    assert_eq!(proxy.left(), 0, "a fault did not strike");
    assert_eq!((report.manifest.outcome, report.manifest.cut.attempts), (Outcome::Complete, 1));
    let [undisturbed, disturbed] = [find(&repository, "undisturbed").await, find(&repository, "disturbed").await];
    assert_eq!(backups::objects(&undisturbed).await, backups::objects(&disturbed).await);
    assert_counts_add_up(&disturbed).await;
}

fn secret(number: usize) -> Value {
    json!({"metadata": {"name": format!("secret-{number}")}, "stringData": {"text": "s"}})
}

/// Takes a backup through a proxy that changes the list of ConfigMaps; the problem that it named.
async fn mismatch(strikes: fn(&Proxy)) -> (String, String) {
    let cluster = embedded().await;
    create_namespace(&cluster.client, "proof").await;
    create_config_maps(&cluster.client, "proof", "some", SOME, 20).await;
    create(&cluster.client, &config_maps("proof"), &config_map("some-victim", "")).await;
    let repository = backups::repository().await;
    let proxy = Proxy::before(&cluster.client).await;
    let undisturbed = back_up(&proxy.client, &repository, "undisturbed", namespaces(&["proof"])).await.unwrap();
    assert_eq!(undisturbed.manifest.outcome, Outcome::Complete);

    strikes(&proxy);
    let manifest = back_up(&proxy.client, &repository, "lied-to", namespaces(&["proof"])).await.unwrap().manifest;
    assert_eq!(proxy.left(), 0, "the lie was not told");
    assert_eq!(manifest.outcome, Outcome::Degraded);
    let [problem] = manifest.problems.as_slice() else { panic!("{:?}", manifest.problems) };
    assert_eq!(problem.kind, ProblemKind::Mismatch);

    strikes(&proxy);
    let error = back_up_strictly(&proxy.client, &repository, "strict", namespaces(&["proof"])).await.unwrap_err();
    assert!(matches!(error, Error::Strict { .. }), "{error}");
    assert_eq!(backups::names(&repository).await, ["undisturbed", "lied-to"]);
    (problem.subject.clone(), problem.message.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_a_list_leaves_out_is_missed_by_the_count() {
    let lie = |proxy: &Proxy| {
        let without_victim = |list: &mut Value| {
            list["items"].as_array_mut().unwrap().retain(|item| item["metadata"]["name"] != "some-victim");
        };
        // the second page holds all that the first leaves
        proxy.strike(later_page("configmaps"), 1, Fault::Rewrite(without_victim));
    };
    let (subject, message) = mismatch(lie).await;
    assert_eq!(subject, "configmaps.core in proof");
    assert_eq!(message, "302 existed at the revision, the list held 301");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_ends_too_early_is_missed_by_the_count() {
    let lie = |proxy: &Proxy| {
        let the_end = |list: &mut Value| drop(list["metadata"].as_object_mut().unwrap().remove("continue"));
        proxy.strike(first_page("configmaps"), 1, Fault::Rewrite(the_end));
    };
    let (subject, message) = mismatch(lie).await;
    assert_eq!(subject, "configmaps.core in proof");
    assert_eq!(message, "302 existed at the revision, the list held 100");
}

/// Takes a backup through a proxy with a fault, leniently and strictly; the manifest of the first. The second must
/// fail, say the same, and leave no backup.
async fn degraded(strikes: fn(&Proxy)) -> Manifest {
    let cluster = embedded().await;
    create_namespace(&cluster.client, "proof").await;
    create(&cluster.client, &secrets("proof"), &secret(1)).await;
    let repository = backups::repository().await;
    let proxy = Proxy::before(&cluster.client).await;
    strikes(&proxy);
    let manifest = back_up(&proxy.client, &repository, "degraded", namespaces(&["proof"])).await.unwrap().manifest;
    assert_eq!(manifest.outcome, Outcome::Degraded);
    let error = back_up_strictly(&proxy.client, &repository, "strict", namespaces(&["proof"])).await.unwrap_err();
    for problem in &manifest.problems {
        assert!(error.to_string().contains(&problem.subject), "{error}");
    }
    assert_eq!(backups::names(&repository).await, ["degraded"]);
    manifest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_discovery_is_stale_is_named() {
    let manifest = degraded(|proxy| {
        let stale = |list: &mut Value| {
            let groups = list["items"].as_array_mut().unwrap();
            let apps = groups.iter_mut().find(|group| group["metadata"]["name"] == "apps").unwrap();
            apps["versions"][0]["freshness"] = "Stale".into();
        };
        proxy.strike(|target| target == "/apis", 2, Fault::Rewrite(stale));
    })
    .await;
    assert_eq!(subjects(&manifest, ProblemKind::Discovery), ["apps/v1"]);
    assert_eq!(manifest.problems.len(), 1, "{:?}", manifest.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_may_not_be_listed_is_named_and_not_called_empty() {
    let forbid = |proxy: &Proxy| {
        proxy.strike(any_list("secrets"), usize::MAX, Fault::Refuse { code: 403, retry_after: 0 });
    };
    let manifest = degraded(forbid).await;
    assert_eq!(subjects(&manifest, ProblemKind::List), ["secrets.core in proof"]);
    assert_eq!(manifest.problems.len(), 1, "{:?}", manifest.problems);
    let secrets = record(&manifest, "secrets.core");
    assert_eq!((secrets.existed, secrets.captured), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_of_another_store_is_named_and_not_mixed_in() {
    let manifest = degraded(|proxy| {
        let of_another = |list: &mut Value| list["metadata"]["resourceVersion"] = "3".into();
        let fresh = |target: &str| any_list("secrets")(target) && !target.contains("resourceVersion");
        proxy.strike(fresh, usize::MAX, Fault::Rewrite(of_another));
    })
    .await;
    assert_eq!(subjects(&manifest, ProblemKind::OtherStore), ["secrets.core"]);
    assert_eq!(record(&manifest, "secrets.core").captured, 0);
}

/// An embedded server whose history is compacted, in the middle of a list, in each of the first `attempts` attempts;
/// a Secret says in which attempt that was last.
async fn compacted(attempts: usize) -> (common::cluster::Embedded, Proxy) {
    let cluster = embedded().await;
    create_namespace(&cluster.client, "proof").await;
    create_config_maps(&cluster.client, "proof", "some", SOME, 20).await;
    create(&cluster.client, &secrets("proof"), &json!({"metadata": {"name": "changed"}})).await;
    let proxy = Proxy::before(&cluster.client).await;
    let (server, client) = (cluster.server.clone(), cluster.client.clone());
    let compact = Fault::before(move |_| {
        let (server, client) = (server.clone(), client.clone());
        async move {
            let change = json!({"metadata": {"labels": {"before": server.revision().to_string()}}});
            patch(&client, &format!("{}/changed", secrets("proof")), &change).await;
            server.compact(server.revision()).unwrap();
        }
    });
    proxy.strike(later_page("configmaps"), attempts, compact);
    (cluster, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_is_compacted_midway_has_everything_read_again_at_a_new_one() {
    for lost in 1..=2_u32 {
        let (cluster, proxy) = compacted(lost as usize).await;
        let repository = backups::repository().await;
        let report = back_up_strictly(&proxy.client, &repository, "retaken", namespaces(&["proof"])).await.unwrap();
        assert_eq!(proxy.left(), 0);
        assert_eq!(report.manifest.cut.attempts, lost + 1);
        assert_eq!(report.manifest.cut.revision, cluster.server.revision());
        let backup = find(&repository, "retaken").await;
        assert_counts_add_up(&backup).await;
        assert_eq!(record(&backup.manifest, "configmaps.core").captured, SOME as u64 + 1);
        // it was captured in the lost attempt too, as it was before
        let live = get(&cluster.client, &format!("{}/changed", secrets("proof"))).await;
        assert_eq!(backups::object(&backup, "secrets/proof/changed").await, live);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_every_revision_is_compacted_away_fails_and_leaves_nothing() {
    let (cluster, proxy) = compacted(3).await;
    let repository = backups::repository().await;
    let error = back_up(&proxy.client, &repository, "lost", namespaces(&["proof"])).await.unwrap_err();
    assert!(matches!(error, Error::RevisionLost { attempts: 3 }), "{error}");
    assert!(backups::names(&repository).await.is_empty());
    back_up_strictly(&cluster.client, &repository, "lost", namespaces(&["proof"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_cancelled_midway_leaves_neither_itself_nor_its_lock() {
    let cluster = embedded().await;
    create_namespace(&cluster.client, "proof").await;
    create_config_maps(&cluster.client, "proof", "some", SOME, 20).await;
    let folder = tempfile::tempdir().unwrap();
    let repository = backups::init(Store::from_url(folder.path().to_str().unwrap()).unwrap()).await;
    let request = BackupRequest::new("stopped", "test", namespaces(&["proof"]));
    let proxy = Proxy::before(&cluster.client).await;
    let cancel = request.cancel.clone();
    let stop = Fault::before(move |_| {
        cancel.cancel();
        // the list would go on: only the cancellation ends it
        std::future::pending()
    });
    proxy.strike(later_page("configmaps"), 1, stop);

    let create = agent::create(proxy.client.clone(), &repository, &request, None, watch::Sender::default());
    let ended = tokio::time::timeout(Duration::from_secs(30), create).await.unwrap();
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    assert_eq!(proxy.left(), 0);
    assert!(backups::names(&repository).await.is_empty());
    assert_eq!(std::fs::read_dir(folder.path().join("locks")).unwrap().count(), 0);
    back_up_strictly(&cluster.client, &repository, "stopped", namespaces(&["proof"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_of_the_scope_that_includes_nothing_degrades_the_backup_by_name() {
    let cluster = embedded().await;
    create_namespace(&cluster.client, "proof").await;
    let repository = backups::repository().await;
    let scope = Scope {
        include_resources: vec!["configmaps".to_owned(), "confgimaps".to_owned()],
        ..namespaces(&["proof", "porof*"])
    };
    let report = back_up(&cluster.client, &repository, "typed", scope.clone()).await.unwrap();
    assert_eq!(report.manifest.outcome, Outcome::Degraded);
    assert_eq!(subjects(&report.manifest, ProblemKind::Unmatched), ["confgimaps", "porof*"]);
    let error = back_up_strictly(&cluster.client, &repository, "strict", scope).await.unwrap_err();
    assert!(matches!(error, Error::Strict { .. }), "{error}");
    // the namespace comes along, or its objects could not be restored
    let held = backups::objects(&find(&repository, "typed").await).await;
    let names: Vec<_> = held.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["configmaps.core/proof/kube-root-ca.crt", "namespaces.core/proof"]);
}
