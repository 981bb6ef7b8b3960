use serde_json::{Value, json};

use super::*;

fn unmounted(only_on: Option<&str>, beside: Option<&str>) -> Unmounted {
    let owned = |node: Option<&str>| node.map(str::to_owned);
    Unmounted { only_on: owned(only_on), beside: owned(beside), read_only: false }
}

#[test]
fn the_scheduler_chooses_unless_somebody_has_it_already_or_one_node_copies_alone() {
    let owned = |node: &str| Ok(Some(node.to_owned()));
    assert_eq!(node(&unmounted(Some("a"), None), None), Ok(None));
    assert_eq!(node(&unmounted(None, Some("b")), None), owned("b"));
    assert_eq!(node(&unmounted(None, None), Some("here")), owned("here"));
    assert_eq!(node(&unmounted(Some("here"), None), Some("here")), owned("here"));
    for elsewhere in [unmounted(Some("a"), None), unmounted(None, Some("a"))] {
        assert!(node(&elsewhere, Some("here")).unwrap_err().contains("of node a"));
    }
}

/// A pod that mounts the claim `data` on a node.
fn pod(name: &str, node: &str, status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name, "uid": name},
        "spec": {
            "nodeName": node,
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
            "containers": [{"name": "main", "volumeMounts": [{"name": "v", "mountPath": "/data"}]}],
        },
        "status": status,
    }))
    .unwrap()
}

fn helper(state: Value) -> Pod {
    let container = json!({"name": "helper", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
        "state": state});
    let mut helper = pod("ours", "a", json!({"phase": "Running", "containerStatuses": [container]}));
    helper.metadata.labels = Some([(COPIES_LABEL.to_owned(), "stillpoint-copy-data".to_owned())].into());
    helper
}

fn held(now: &[Pod], ended_before: &[&str]) -> Held {
    let (helpers, ended) = ([("shop/data".to_owned(), Box::new(helper(json!({"running": {}}))))], ended_before);
    let mut held = Held::default();
    held.add("shop", &helpers, now, &ended.iter().map(|&uid| uid.to_owned()).collect());
    held
}

#[test]
fn whoever_has_come_to_mount_a_claim_on_another_node_may_have_written_to_it() {
    let (ours, running) = (helper(json!({"running": {}})), json!({"phase": "Running"}));
    let found = held(&[ours.clone(), pod("here", "a", running.clone()), pod("there", "b", running)], &[]);
    assert_eq!(found.elsewhere["shop/data"], ["pod there on node b mounted it meanwhile"]);
    // one that came and ended has written too; one that had ended before has not
    let ended = [ours, pod("job", "b", json!({"phase": "Succeeded"}))];
    assert!(held(&ended, &[]).elsewhere.contains_key("shop/data"));
    let found = held(&ended, &["job"]);
    assert!(found.elsewhere.is_empty() && found.lost.is_empty());
}

#[test]
fn a_claim_whose_helper_pod_is_gone_is_not_copied() {
    assert!(held(&[], &[]).lost.contains_key("shop/data"));
    assert!(held(&[helper(json!({"terminated": {"exitCode": 0}}))], &[]).lost.contains_key("shop/data"));
}

#[test]
fn all_are_waited_for_as_long_as_some_come_to_run() {
    let long_ago = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
    let patience = Patience { each: Duration::from_secs(5), since: Mutex::new(long_ago) };
    assert!(patience.deadline() < Instant::now());
    patience.one_runs();
    assert!(patience.deadline() > Instant::now());
}
