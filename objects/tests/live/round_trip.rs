//! Objects as a real cluster with its controllers has them, taken through capture, sanitising and restoring.
//!
//! The published rules were written from what such clusters do; here they are held against one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kube::Client;
use serde_json::{Value, json};
use stillpoint_api::{ExclusionRule, ResourceType, Scope};
use stillpoint_objects::{
    diff::diff,
    discovery::{Discovery, discover},
    filter::Selection,
    list::{Meta, list_at, read_revision},
    normalise::normalise,
    retry::Retry,
    sanitise::{Mapping, Sanitised, SkipReason, sanitise},
};

use crate::suite::{create, namespace, unique};

const SOON: Duration = Duration::from_secs(60);

/// One object of each kind, as people write them: most fields are the server's defaults.
fn written(namespace: &str) -> Vec<Value> {
    let pod = json!({"serviceAccountName": "web", "containers": [{"name": "c", "image": "busybox:1",
        "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "livenessProbe": {"httpGet": {"port": 80}}}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "e", "emptyDir": {}}]});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod});
    let mut once = template.clone();
    once["spec"]["restartPolicy"] = "Never".into();
    let selector = json!({"matchLabels": {"app": "web"}});
    let size = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": ""});
    let objects = [
        ("v1", "ServiceAccount", json!({})),
        ("v1", "ConfigMap", json!({"data": {"a": "1"}, "binaryData": {"b": "AAE="}})),
        ("v1", "Secret", json!({"stringData": {"password": "hunter2"}})),
        ("v1", "PersistentVolumeClaim", json!({"metadata": {"name": "data"}, "spec": size})),
        ("v1", "Service", json!({"spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], "type": "NodePort"}})),
        (
            "v1",
            "Service",
            json!({"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}),
        ),
        ("v1", "Pod", json!({"metadata": {"name": "alone"}, "spec": pod})),
        ("apps/v1", "Deployment", json!({"spec": {"selector": selector, "template": template}})),
        (
            "apps/v1",
            "StatefulSet",
            json!({"spec": {"serviceName": "headless", "selector": selector, "template": template,
                "volumeClaimTemplates": [{"metadata": {"name": "more"}, "spec": size}]}}),
        ),
        ("apps/v1", "DaemonSet", json!({"spec": {"selector": selector, "template": template}})),
        ("batch/v1", "Job", json!({"spec": {"template": once}})),
        (
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
        ),
        (
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}}),
        ),
        ("networking.k8s.io/v1", "NetworkPolicy", json!({"spec": {"podSelector": {}}})),
        (
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
                "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": namespace}]}),
        ),
    ];
    let complete = |(api_version, kind, mut object): (&str, &str, Value)| {
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.into();
        object["metadata"]["namespace"] = namespace.into();
        if object["metadata"]["name"].is_null() {
            object["metadata"]["name"] = "web".into();
        }
        object
    };
    objects.into_iter().map(complete).collect()
}

/// Objects by kind and name.
type Objects = BTreeMap<(String, String), (ResourceType, Value)>;

/// Everything of a namespace that nobody owns.
async fn captured(client: &Client, discovery: &Discovery, namespace: &str) -> Objects {
    let retry = Retry::default();
    let selection = Selection::compile(&Scope::default()).unwrap();
    let at = read_revision(client, &retry).await.unwrap();
    let mut objects = Objects::new();
    for served in discovery.types.iter().filter(|served| served.resource.namespaced && served.verbs.list) {
        let of = &served.resource;
        // a second name for objects of other groups
        if of.name.group == "extensions" || selection.type_rule(of, served.verbs.create).is_some() {
            continue;
        }
        let mut pages = list_at(client, of, Some(namespace), at, &retry);
        while let Some(page) = pages.next().await.unwrap() {
            for item in page.items().map(Result::unwrap).filter(|item| item.meta.owners.is_empty()) {
                if selection.object_rule(of, &item.meta).is_none() {
                    let key = (of.name.to_string(), item.meta.name.to_string());
                    objects.insert(key, (of.clone(), item.value().unwrap()));
                }
            }
        }
    }
    objects
}

fn is_settled(objects: &Objects) -> bool {
    // the Job controller is the last to write, the account's token among the first
    let job = &objects[&("jobs.batch".to_owned(), "web".to_owned())].1;
    let account = &objects[&("serviceaccounts.core".to_owned(), "web".to_owned())].1;
    !job["status"]["startTime"].is_null() && !account["secrets"].is_null()
}

async fn settled(client: &Client, discovery: &Discovery, namespace: &str) -> Objects {
    let deadline = Instant::now() + SOON;
    loop {
        let objects = captured(client, discovery, namespace).await;
        if is_settled(&objects) {
            return objects;
        }
        assert!(Instant::now() < deadline, "the controllers have not settled in time");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn what_is_restored_equals_what_was_captured(client: Client) {
    let discovery = discover(&client, &Retry::default()).await.unwrap();
    let (from, to) = (&unique("objects-from"), &unique("objects-to"));
    namespace(&client, from).await;
    for object in written(from) {
        let kind = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let of = discovery.of_kind(kind.0, kind.1).unwrap().resource.clone();
        create(&client, &of, object).await;
    }
    let before = settled(&client, &discovery, from).await;

    namespace(&client, to).await;
    let mapping = Mapping { namespaces: BTreeMap::from([(from.clone(), to.clone())]), ..Mapping::default() };
    let mut skipped = Vec::new();
    let mut wanted = Objects::new();
    // accounts first: Pods are refused without them
    let rank = |key: &&(String, String)| key.0 != "serviceaccounts.core";
    let mut keys: Vec<_> = before.keys().collect();
    keys.sort_by_key(rank);
    for key in keys {
        let (of, object) = &before[key];
        match sanitise(of, object.clone(), &mapping) {
            Sanitised::Skip(reason) => skipped.push((key.0.as_str(), reason)),
            // every namespace has a default account by the time it is asked for
            Sanitised::Create(_) if key.1 == "default" => {}
            Sanitised::Create(sanitised) => {
                create(&client, of, sanitised.clone()).await;
                wanted.insert(key.clone(), (of.clone(), sanitised));
            }
        }
    }
    skipped.sort();
    assert_eq!(
        skipped,
        [
            ("configmaps.core", SkipReason::MadeByCluster),
            ("secrets.core", SkipReason::AccountToken),
            ("secrets.core", SkipReason::AccountToken)
        ]
    );

    let after = settled(&client, &discovery, to).await;
    assert!(wanted.len() >= written(from).len(), "{:?}", wanted.keys());
    for (key, (of, _)) in &wanted {
        let expected = moved(normalise(of, before[key].1.clone()), to);
        let restored = normalise(of, after[key].1.clone());
        let changes: Vec<_> = diff(&expected, &restored).iter().map(ToString::to_string).collect();
        assert!(changes.is_empty(), "{key:?}: {changes:#?}");
    }
}

/// The same object in the other namespace.
fn moved(mut object: Value, to: &str) -> Value {
    object["metadata"]["namespace"] = to.into();
    for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        subject["namespace"] = to.into();
    }
    object
}

pub(crate) async fn what_controllers_make_from_services_is_known_as_theirs(client: Client) {
    let ns = &unique("objects-endpoints");
    let discovery = discover(&client, &Retry::default()).await.unwrap();
    let of = |name: &str| discovery.get(&name.parse().unwrap()).unwrap().resource.clone();
    namespace(&client, ns).await;
    let service = |name: &str, selector: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": ns, "name": name},
            "spec": {"ports": [{"port": 80}], "selector": selector}})
    };
    create(&client, &of("services"), service("made", json!({"app": "none"}))).await;
    create(&client, &of("services"), service("mine", Value::Null)).await;
    let mine = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"namespace": ns, "name": "mine"},
        "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}]});
    create(&client, &of("endpoints"), mine).await;

    let deadline = Instant::now() + SOON;
    loop {
        let mut rules = BTreeMap::new();
        for name in ["endpoints", "endpointslices.discovery.k8s.io"] {
            rules.extend(rules_of(&client, &of(name), ns).await);
        }
        // Endpoints of both Services, and a slice of each: made for one, mirrored for the other
        if rules.len() == 4 {
            let taken: Vec<_> = rules.into_iter().filter(|(_, rule)| rule.is_none()).map(|(key, _)| key).collect();
            assert_eq!(taken, ["endpoints.core mine"]);
            return;
        }
        assert!(Instant::now() < deadline, "{rules:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn rules_of(client: &Client, of: &ResourceType, namespace: &str) -> BTreeMap<String, Option<ExclusionRule>> {
    let retry = Retry::default();
    let selection = Selection::compile(&Scope::default()).unwrap();
    let at = read_revision(client, &retry).await.unwrap();
    let page = list_at(client, of, Some(namespace), at, &retry).next().await.unwrap().unwrap();
    let rule = |meta: &Meta<'_>| (format!("{} {}", of.name, meta.name), selection.object_rule(of, meta));
    page.items().map(|item| rule(&item.unwrap().meta)).collect()
}
