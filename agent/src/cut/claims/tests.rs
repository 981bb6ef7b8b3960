use std::sync::LazyLock;

use serde_json::{Value, json};

use super::*;

fn claim(name: &str, spec: Value) -> PersistentVolumeClaim {
    serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec})).unwrap()
}

fn bound(name: &str) -> PersistentVolumeClaim {
    claim(name, json!({"volumeName": format!("pv-{name}")}))
}

/// One policy for every volume.
fn policies(action: Value) -> Policies {
    let policies = json!({"version": "v1", "volumePolicies": [{"conditions": {}, "action": action}]});
    Policies::compile(serde_json::from_value(policies).unwrap()).unwrap()
}

/// Nothing is asked for.
fn nothing() -> Wishes<'static> {
    static NONE: LazyLock<Policies> = LazyLock::new(Policies::default);
    Wishes { method: None, policies: &NONE }
}

/// A pod that runs on a node and mounts a claim once.
fn pod(name: &str, node: &str, claim: &str, mount: Value) -> Value {
    let mut mounts = json!({"name": "v", "mountPath": "/data"});
    mounts.as_object_mut().unwrap().extend(mount.as_object().unwrap().clone());
    json!({
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}")},
        "spec": {
            "nodeName": node,
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [{"name": "main", "volumeMounts": [mounts]}, {"name": "other"}],
        },
        "status": {"phase": "Running", "containerStatuses": [
            {"name": "main", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
             "containerID": format!("containerd://{name}"), "state": {"running": {}}},
            {"name": "other", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
             "containerID": "containerd://other", "state": {"running": {}}},
        ]},
    })
}

fn one(claim: PersistentVolumeClaim, pods: &[Value]) -> Claim {
    let pods = pods.iter().map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect();
    plan(&Seen { claims: vec![claim], volumes: Vec::new(), pods }, nothing()).remove(0)
}

fn volume(claim: Claim) -> (String, wire::Volume) {
    match claim.place {
        Place::Node(node, volume) => (node, *volume),
        other => panic!("{other:?}"),
    }
}

fn refusal(claim: &Claim) -> &str {
    match &claim.place {
        Place::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_claim_is_copied_where_its_pod_runs_through_the_container_that_mounts_it() {
    let planned = one(bound("data"), &[pod("db-0", "a", "data", json!({})), pod("web", "b", "other", json!({}))]);
    assert_eq!(planned.pods, ["shop/db-0"]);
    let (node, volume) = volume(planned);
    let expected = wire::Mount {
        pod: "shop/db-0".into(),
        pod_uid: "uid-db-0".into(),
        container_id: "containerd://db-0".into(),
        mount_path: "/data".into(),
        part: false,
    };
    assert_eq!((node.as_str(), volume.read_only, volume.freeze), ("a", false, true));
    assert_eq!(volume.mounts, [expected]);
    assert_eq!((volume.id.as_str(), volume.volume_name.as_str()), ("shop/data", "pv-data"));
}

#[test]
fn a_mount_of_all_of_it_comes_before_one_of_a_part() {
    let pods = [pod("a", "n", "data", json!({"subPath": "x"})), pod("b", "n", "data", json!({}))];
    let (_, volume) = volume(one(bound("data"), &pods));
    let parts: Vec<_> = volume.mounts.iter().map(|mount| (mount.pod.as_str(), mount.part)).collect();
    assert_eq!(parts, [("shop/b", false), ("shop/a", true)]);
}

#[test]
fn writers_on_two_nodes_are_refused_and_readers_elsewhere_are_not() {
    let writer = |name, node| pod(name, node, "data", json!({}));
    let reader = |name, node| pod(name, node, "data", json!({"readOnly": true}));
    assert!(refusal(&one(bound("data"), &[writer("x", "a"), writer("y", "b")])).contains("(a, b)"));
    let (node, of_writer) = volume(one(bound("data"), &[reader("x", "a"), writer("y", "b")]));
    assert_eq!((node.as_str(), of_writer.mounts.len(), of_writer.read_only), ("b", 1, false));
    assert!(volume(one(bound("data"), &[reader("x", "a"), reader("y", "b")])).1.read_only);
}

#[test]
fn what_cannot_be_copied_is_refused_by_name() {
    assert!(refusal(&one(claim("data", json!({})), &[])).contains("not bound"));
    let block = json!({"volumeName": "pv", "volumeMode": "Block"});
    assert!(refusal(&one(claim("data", block), &[])).contains("block device"));
    let mut guest = pod("vm", "a", "data", json!({}));
    guest["spec"]["runtimeClassName"] = "kata-qemu".into();
    assert!(refusal(&one(bound("data"), &[guest])).contains("runtime class kata-qemu"));
}

#[test]
fn a_claim_without_a_running_pod_is_unmounted_and_knows_its_only_node() {
    let mut ended = pod("job", "a", "data", json!({}));
    ended["status"]["phase"] = "Succeeded".into();
    let volume: PersistentVolume = serde_json::from_value(json!({
        "metadata": {"name": "pv-data"},
        "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["c"]}]}]}}},
    }))
    .unwrap();
    let pods = vec![serde_json::from_value(ended).unwrap()];
    let planned = plan(&Seen { claims: vec![bound("data")], volumes: vec![volume], pods }, nothing()).remove(0);
    let unmounted = Unmounted { only_on: Some("c".into()), beside: None, read_only: false };
    assert_eq!((planned.place, planned.unmounted), (Place::Unmounted(unmounted), true));
}

fn unmounted(claim: PersistentVolumeClaim, pods: &[Value]) -> Unmounted {
    match one(claim, pods).place {
        Place::Unmounted(unmounted) => unmounted,
        other => panic!("{other:?}"),
    }
}

/// A pod of ours that mounts a claim for a backup.
fn helper(name: &str, node: &str, mount: Value) -> Value {
    let mut helper = pod(name, node, "data", mount);
    helper["metadata"]["labels"] = json!({COPIES_LABEL: "stillpoint-copy-data"});
    helper
}

#[test]
fn another_backups_helper_pod_is_no_user_and_ours_goes_beside_it_or_a_pod_that_does_not_run() {
    let theirs = helper("theirs", "b", json!({}));
    assert_eq!(unmounted(bound("data"), &[theirs]).beside, Some("b".into()));
    let mut crashing = pod("db-0", "c", "data", json!({}));
    crashing["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    assert_eq!(unmounted(bound("data"), &[crashing.clone()]).beside, Some("c".into()));
    crashing["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(unmounted(bound("data"), &[crashing]).beside, None);
}

#[test]
fn through_our_helper_pod_a_claim_is_copied_where_that_runs_and_its_writers_are_still_to_be_stopped() {
    let place = |claim: &PersistentVolumeClaim, mount: Value| {
        through(&serde_json::from_value(helper("ours", "b", mount)).unwrap(), claim, &Wished::default())
    };
    let Place::Node(node, volume) = place(&bound("data"), json!({})) else { panic!() };
    assert_eq!((node.as_str(), volume.read_only, volume.freeze), ("b", false, true));
    assert_eq!((volume.mounts[0].pod.as_str(), volume.mounts[0].mount_path.as_str()), ("shop/ours", "/data"));
    // one that nobody may write to is mounted so
    let modes = |modes: Value| claim("data", json!({"volumeName": "pv-data", "accessModes": modes}));
    assert!(unmounted(modes(json!(["ReadOnlyMany"])), &[]).read_only);
    assert!(!unmounted(modes(json!(["ReadOnlyMany", "ReadWriteOnce"])), &[]).read_only);
    let Place::Node(_, volume) = place(&bound("data"), json!({"readOnly": true})) else { panic!() };
    assert!(volume.read_only);
    assert_eq!(place(&bound("other"), json!({})), Place::Refused(NOT_MOUNTED.into()));
}

#[test]
fn a_pod_may_write_where_it_is_even_if_nothing_is_known_of_its_containers_yet() {
    let mut starting = pod("db-0", "c", "data", json!({}));
    starting["status"] = json!({"phase": "Pending"});
    let on = |pod: &Value| writes_on(&serde_json::from_value(pod.clone()).unwrap(), "shop", "data").map(str::to_owned);
    assert_eq!(on(&starting).as_deref(), Some("c"));
    starting["spec"]["nodeName"] = Value::Null;
    assert_eq!(on(&starting), None);
    assert_eq!(on(&pod("reader", "c", "data", json!({"readOnly": true}))), None);
    assert_eq!(on(&pod("other", "c", "else", json!({}))), None);
}

#[test]
fn the_users_method_wins_over_a_policy_that_over_the_claims_annotation_and_that_over_the_pods() {
    let mut annotated = pod("db", "a", "data", json!({}));
    annotated["metadata"]["annotations"] = json!({METHOD_ANNOTATION: "live", FREEZE_ANNOTATION: "false"});
    let method = |claim: &PersistentVolumeClaim, method, policies: &Policies| {
        let pods = vec![serde_json::from_value(annotated.clone()).unwrap()];
        let seen = Seen { claims: vec![claim.clone()], volumes: Vec::new(), pods };
        let (_, volume) = volume(plan(&seen, Wishes { method, policies }).remove(0));
        (volume.method, volume.freeze)
    };
    let mut own = bound("data");
    let none = Policies::default();
    assert_eq!(method(&own, None, &none), ("live".to_owned(), false));
    own.metadata.annotations = Some([(METHOD_ANNOTATION.to_owned(), "reflink".to_owned())].into());
    assert_eq!(method(&own, None, &none).0, "reflink");
    let btrfs = policies(json!({"type": "fs-backup", "parameters": {"method": "btrfs", "freeze": true}}));
    assert_eq!(method(&own, None, &btrfs), ("btrfs".to_owned(), true));
    assert_eq!(method(&own, Some("precopy"), &btrfs).0, "precopy");
}

#[test]
fn a_claim_that_a_policy_skips_is_left_out_neither_refused_nor_mounted() {
    let seen = Seen { claims: vec![claim("data", json!({})), bound("other")], ..Seen::default() };
    let skipping = policies(json!({"type": "skip"}));
    for planned in plan(&seen, Wishes { method: None, policies: &skipping }) {
        assert_eq!((planned.place, planned.unmounted), (Place::LeftOut, false));
    }
}
