//! Nothing missing in silence, on a real kube-apiserver: it fails, forbids and compacts by itself.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{
    backups::{self, back_up, back_up_strictly, find, namespaces, record, subjects},
    cluster::{
        CLUSTER, COMPACTING, Real, ask, client, config_maps, create, create_config_maps, eventually, get,
        on_real_cluster, patch, secrets,
    },
    proxy::{Fault, Proxy, later_page},
};
use http::Method;
use serde_json::{Value, json};
use stillpoint_agent::Error;
use stillpoint_api::{Exclusion, ExclusionRule, Outcome, ProblemKind, Scope, VolumeIntent};

/// More than one page of a list.
const SOME: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_nobody_serves_is_named_and_a_strict_backup_refused() {
    on_real_cluster(CLUSTER, async |Real { client, namespace, .. }| {
        let repository = backups::repository().await;
        let before = back_up(&client, &repository, "before", namespaces(&[&namespace])).await.unwrap();
        assert_eq!(before.manifest.outcome, Outcome::Complete, "{:?}", before.manifest.problems);

        let group = format!("{namespace}.example.com");
        let service = json!({
            "metadata": {"name": format!("v1.{group}")},
            "spec": {
                "group": group, "version": "v1", "service": {"namespace": namespace, "name": "nobody"},
                "insecureSkipTLSVerify": true, "groupPriorityMinimum": 1000, "versionPriority": 10,
            },
        });
        create(&client, "/apis/apiregistration.k8s.io/v1/apiservices", &service).await;
        eventually("the group fails", || async {
            let answer = ask(&client, Method::GET, &format!("/apis/{group}/v1"), &Value::Null).await;
            matches!(answer, Err(kube::Error::Api(status)) if status.code == 503)
        })
        .await;

        let degraded = back_up(&client, &repository, "degraded", namespaces(&[&namespace])).await.unwrap();
        let subject = format!("{group}/v1");
        assert_eq!(subjects(&degraded.manifest, ProblemKind::Discovery), [&*subject]);
        assert_eq!((degraded.manifest.outcome, degraded.manifest.problems.len()), (Outcome::Degraded, 1));
        assert!(degraded.manifest.problems[0].message.contains("503"), "{}", degraded.manifest.problems[0]);
        let error = back_up_strictly(&client, &repository, "strict", namespaces(&[&namespace])).await.unwrap_err();
        assert!(matches!(error, Error::Strict { .. }) && error.to_string().contains(&subject), "{error}");
        assert_eq!(backups::names(&repository).await, ["before", "degraded"]);
    })
    .await;
}

/// Lets `account` list everything that the server serves, except Secrets.
async fn allow_all_but_secrets(client: &kube::Client, namespace: &str, account: &str) {
    let core = get(client, "/api/v1").await;
    let names = core["resources"].as_array().unwrap().iter().map(|resource| resource["name"].as_str().unwrap());
    let core: Vec<_> = names.filter(|name| *name != "secrets").collect();
    let groups = get(client, "/apis").await;
    let groups: Vec<_> = groups["groups"].as_array().unwrap().iter().map(|group| group["name"].clone()).collect();
    let verbs = ["get", "list"];
    let role = json!({
        "metadata": {"name": namespace},
        "rules": [
            {"apiGroups": [""], "resources": core, "verbs": verbs},
            {"apiGroups": groups, "resources": ["*"], "verbs": verbs},
        ],
    });
    create(client, "/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await;
    let binding = json!({
        "metadata": {"name": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace},
        "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": account}],
    });
    create(client, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_a_service_account_may_not_list_is_named_and_not_called_empty() {
    on_real_cluster(CLUSTER, async |Real { client: administrator, mut config, namespace }| {
        let account = json!({"metadata": {"name": "restricted"}});
        create(&administrator, &format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &account).await;
        allow_all_but_secrets(&administrator, &namespace, "restricted").await;
        create(&administrator, &secrets(&namespace), &json!({"metadata": {"name": "hidden"}})).await;
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:restricted"));
        let restricted = client(config);
        eventually("the binding is in force", || async {
            ask(&restricted, Method::GET, &config_maps(&namespace), &Value::Null).await.is_ok()
        })
        .await;

        let repository = backups::repository().await;
        let report = back_up(&restricted, &repository, "degraded", namespaces(&[&namespace])).await.unwrap();
        let subject = format!("secrets.core in {namespace}");
        assert_eq!(subjects(&report.manifest, ProblemKind::List), [&*subject]);
        assert_eq!((report.manifest.outcome, report.manifest.problems.len()), (Outcome::Degraded, 1));
        assert!(report.manifest.problems[0].message.contains("forbidden"), "{}", report.manifest.problems[0]);
        let hidden = record(&report.manifest, "secrets.core");
        assert_eq!((hidden.existed, hidden.captured), (None, 0));
        let error = back_up_strictly(&restricted, &repository, "strict", namespaces(&[&namespace])).await.unwrap_err();
        assert!(error.to_string().contains(&subject), "{error}");

        let full = back_up_strictly(&administrator, &repository, "full", namespaces(&[&namespace])).await.unwrap();
        assert!(record(&full.manifest, "secrets.core").captured > 0);
        assert_eq!(backups::names(&repository).await, ["degraded", "full"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_20000_objects_is_in_the_backup_once() {
    on_real_cluster(CLUSTER, async |Real { client, namespace, .. }| {
        create_config_maps(&client, &namespace, "many", 20_000, 20).await;
        let repository = backups::repository().await;
        let scope = Scope { include_resources: vec!["configmaps".to_owned()], ..namespaces(&[&namespace]) };
        let report = back_up_strictly(&client, &repository, "many", scope).await.unwrap();

        let counted = record(&report.manifest, "configmaps.core");
        // the server's controllers add one of their own, sooner or later
        assert!(matches!(counted.captured, 20_000 | 20_001), "{counted:?}");
        assert_eq!(counted.existed, Some(counted.captured));
        let held = backups::objects(&find(&repository, "many").await).await;
        let names: BTreeSet<_> = held.keys().map(|object| object.name.as_str()).collect();
        let missing = (0..20_000).map(|n| format!("many-{n:05}")).filter(|name| !names.contains(&**name)).count();
        assert_eq!(missing, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_served_under_two_groups_are_captured_once() {
    on_real_cluster(CLUSTER, async |Real { client, namespace, .. }| {
        let ingress = json!({
            "metadata": {"name": "web"},
            "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
        });
        create(&client, &format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses"), &ingress).await;
        let event = json!({
            "metadata": {"name": "happened"}, "reason": "Tested",
            "involvedObject": {"kind": "Namespace", "name": namespace, "namespace": namespace},
        });
        create(&client, &format!("/api/v1/namespaces/{namespace}/events"), &event).await;

        let repository = backups::repository().await;
        let include_resources = vec!["ingresses".to_owned(), "events".to_owned()];
        let scope = Scope { include_resources, ..namespaces(&[&namespace]) };
        let manifest = back_up_strictly(&client, &repository, "twins", scope).await.unwrap().manifest;
        for (captured, twin) in
            [("ingresses.networking.k8s.io", "ingresses.extensions"), ("events.core", "events.events.k8s.io")]
        {
            let [captured, twin] = [record(&manifest, captured), record(&manifest, twin)];
            assert_eq!((captured.existed, captured.captured), (Some(1), 1), "{captured:?}");
            let same = ExclusionRule::SameAs(captured.resource.name.clone());
            assert_eq!(twin.excluded, [Exclusion { rule: same, objects: 1 }], "{twin:?}");
            assert_eq!(twin.captured, 0);
        }
        let held = backups::objects(&find(&repository, "twins").await).await;
        // the namespace comes along
        let types: Vec<_> = held.keys().map(|object| object.resource.to_string()).collect();
        assert_eq!(types, ["events.core", "namespaces.core", "ingresses.networking.k8s.io"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_exists_is_captured_or_excluded_by_a_rule() {
    on_real_cluster(CLUSTER, async |Real { client, namespace, .. }| {
        let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        create(&client, &leases, &json!({"metadata": {"name": "leader"}})).await;
        let repository = backups::repository().await;
        let all = Scope { volumes: VolumeIntent::LeftOut, ..Scope::default() };
        let manifest = back_up(&client, &repository, "all", all).await.unwrap().manifest;
        assert_eq!(manifest.problems, []);
        for record in &manifest.types {
            // the server asks its components for these: no revision, no count
            let of_no_store = record.resource.name.is("", "componentstatuses");
            let seen = (!of_no_store).then_some(record.captured + record.excluded_objects());
            assert_eq!(record.existed, seen, "{record:?}");
        }
        let by_default = |resource| record(&manifest, resource).captured;
        assert!(by_default("clusterroles.rbac.authorization.k8s.io") > 0);
        assert_eq!(by_default("leases.coordination.k8s.io") + by_default("events.core"), 0);
        let leases = &record(&manifest, "leases.coordination.k8s.io").excluded;
        assert!(matches!(leases[..], [Exclusion { rule: ExclusionRule::NotByDefault, objects: 1.. }]), "{leases:?}");
    })
    .await;
}

/// A proxy that lets the next page of a list through only when the server has compacted its revision away, `times`.
async fn outlasting(real: &Real, times: usize) -> Proxy {
    let Real { client, namespace, .. } = real;
    create_config_maps(client, namespace, "some", SOME, 20).await;
    create(client, &secrets(namespace), &json!({"metadata": {"name": "changed"}})).await;
    let proxy = Proxy::before(client).await;
    let (client, secret) = (client.clone(), format!("{}/changed", secrets(namespace)));
    let outlast = Fault::before(move |page| {
        let (client, secret) = (client.clone(), secret.clone());
        async move {
            patch(&client, &secret, &json!({"metadata": {"labels": {"changed": "yes"}}})).await;
            eventually("the revision is compacted", || async {
                let answer = ask(&client, Method::GET, &page, &Value::Null).await;
                matches!(answer, Err(kube::Error::Api(status)) if status.code == 410)
            })
            .await;
        }
    });
    proxy.strike(later_page("configmaps"), times, outlast);
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_the_server_compacts_midway_has_everything_read_again_at_a_new_one() {
    on_real_cluster(COMPACTING, async |real| {
        let proxy = outlasting(&real, 1).await;
        let Real { client, namespace, .. } = &real;
        let repository = backups::repository().await;
        let report = back_up_strictly(&proxy.client, &repository, "retaken", namespaces(&[namespace])).await.unwrap();
        assert_eq!((proxy.left(), report.manifest.cut.attempts), (0, 2));
        assert!(record(&report.manifest, "configmaps.core").captured >= SOME as u64);
        // it was captured in the lost attempt too, as it was before
        let held = backups::object(&find(&repository, "retaken").await, &format!("secrets/{namespace}/changed")).await;
        let live = get(client, &format!("{}/changed", secrets(namespace))).await;
        assert_eq!(held, live);
        assert_eq!(held["metadata"]["labels"]["changed"], "yes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_every_revision_the_server_compacts_fails_and_leaves_nothing() {
    on_real_cluster(COMPACTING, async |real| {
        let proxy = outlasting(&real, 3).await;
        let repository = backups::repository().await;
        let scope = namespaces(&[&real.namespace]);
        let error = back_up(&proxy.client, &repository, "lost", scope).await.unwrap_err();
        assert!(matches!(error, Error::RevisionLost { attempts: 3 }), "{error}");
        assert!(backups::names(&repository).await.is_empty());
    })
    .await;
}
