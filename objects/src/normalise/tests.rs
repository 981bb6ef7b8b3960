use serde_json::json;

use super::*;
use crate::diff::diff;

mod full;

fn resource(name: &str) -> ResourceType {
    let name: stillpoint_api::GroupResource = name.parse().unwrap();
    ResourceType { name, version: "v1".into(), kind: "Kind".into(), namespaced: true }
}

/// One leaf of an object: the keys and indices that lead to it.
#[derive(Debug, Clone, PartialEq)]
enum Key {
    Field(String),
    Index(usize),
}

fn leaves(value: &Value, path: &mut Vec<Key>, found: &mut Vec<Vec<Key>>) {
    match value {
        Value::Object(map) if !map.is_empty() => map.iter().for_each(|(name, value)| {
            path.push(Key::Field(name.clone()));
            leaves(value, path, found);
            path.pop();
        }),
        Value::Array(list) if !list.is_empty() => list.iter().enumerate().for_each(|(index, value)| {
            path.push(Key::Index(index));
            leaves(value, path, found);
            path.pop();
        }),
        _ => found.push(path.clone()),
    }
}

fn at<'a>(value: &'a mut Value, path: &[Key]) -> &'a mut Value {
    path.iter().fold(value, |value, key| match key {
        Key::Field(name) => &mut value[name.as_str()],
        Key::Index(index) => &mut value[*index],
    })
}

fn remove(value: &mut Value, path: &[Key]) {
    let (last, above) = path.split_last().unwrap();
    match (at(value, above), last) {
        (Value::Object(map), Key::Field(name)) => drop(map.remove(name)),
        (Value::Array(list), Key::Index(index)) => drop(list.remove(*index)),
        _ => unreachable!(),
    }
}

/// A value that no rule names.
fn other(value: &Value) -> Value {
    match value {
        Value::String(text) => format!("{text}-changed").into(),
        Value::Number(number) => (number.as_i64().unwrap_or_default() + 4711).into(),
        Value::Bool(flag) => (!flag).into(),
        _ => "changed".into(),
    }
}

/// Whether a rule's path is the leaf's, or leads to something the leaf is in.
fn covers(rule: &Rule, leaf: &[Key]) -> bool {
    let steps = steps(rule.path);
    steps.len() <= leaf.len()
        && steps.iter().zip(leaf).all(|(step, key)| match (step, key) {
            (Step::Field(name), Key::Field(field)) => name == field,
            (Step::Each, Key::Index(_)) => true,
            _ => false,
        })
}

/// The rules that may hide a leaf: one that hides a default may hide that it is gone, never that it is another.
fn excuses<'a>(of: &ResourceType, leaf: &[Key], is_gone: bool) -> Vec<&'a Rule> {
    let may = |rule: &&Rule| is_gone || !matches!(rule.hides, Hides::Value(_));
    RULES.iter().filter(|rule| rule.is_for(of) && covers(rule, leaf)).filter(may).collect()
}

fn named(of: &ResourceType, before: &Value, after: &Value) -> bool {
    !diff(&normalise(of, before.clone()), &normalise(of, after.clone())).is_empty()
}

#[test]
fn every_changed_and_every_lost_leaf_is_named_unless_a_published_rule_covers_it() {
    let (mut tried, mut hidden) = (0, 0);
    for (name, object) in full::objects() {
        let of = resource(name);
        let mut paths = Vec::new();
        leaves(&object, &mut Vec::new(), &mut paths);
        for leaf in paths {
            let mut changed = object.clone();
            let place = at(&mut changed, &leaf);
            *place = other(place);
            let mut lost = object.clone();
            remove(&mut lost, &leaf);
            for (after, is_gone) in [(changed, false), (lost, true)] {
                tried += 1;
                if !named(&of, &object, &after) {
                    hidden += 1;
                    assert!(!excuses(&of, &leaf, is_gone).is_empty(), "{name}: {leaf:?} is hidden by no rule");
                }
            }
        }
    }
    assert!(tried > 600 && hidden > 50, "{tried} tried, {hidden} hidden: the objects have become too thin");
}

#[test]
fn every_added_field_is_named() {
    for (name, object) in full::objects() {
        let of = resource(name);
        for path in ["metadata", "spec", "data"] {
            let mut after = object.clone();
            if let Some(map) = after.get_mut(path).and_then(Value::as_object_mut) {
                map.insert("added".into(), true.into());
                assert!(named(&of, &object, &after), "{name} {path}");
            }
        }
    }
}

#[test]
fn every_rule_hides_something_of_some_object() {
    // a rule that nothing needs would stay forever
    for rule in RULES {
        let works =
            full::objects().into_iter().filter(|(name, _)| rule.is_for(&resource(name))).any(|(name, object)| {
                let of = resource(name);
                let mut after = object.clone();
                rule.apply(&of, &object, &mut after);
                after != object
            });
        assert!(works, "{} {:?}", rule.path, rule.types);
    }
}

#[test]
fn a_default_is_hidden_and_any_other_value_is_not() {
    let of = resource("services");
    let service = |policy: &str| json!({"spec": {"type": "ClusterIP", "internalTrafficPolicy": policy}});
    let old = json!({"spec": {"type": "ClusterIP"}});
    assert!(!named(&of, &old, &service("Cluster")));
    assert!(named(&of, &old, &service("Local")));
    assert!(named(&of, &service("Cluster"), &service("Local")));
}

#[test]
fn conditions_hold_rules_back() {
    let services = resource("services");
    let address = |ip: &str| json!({"spec": {"clusterIP": ip, "clusterIPs": [ip]}});
    assert!(!named(&services, &address("10.0.0.1"), &address("10.0.0.2")));
    assert!(named(&services, &address("None"), &address("10.0.0.2")));

    let applied = json!({"spec": {"ports": [{"port": 80, "nodePort": 30080}]}}).to_string();
    let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
    let port = |number: u16| json!({"spec": {"ports": [{"port": 80, "nodePort": number}]}});
    let asked = |number: u16| {
        let mut service = port(number);
        service["metadata"] = json!({ "annotations": annotations });
        service
    };
    assert!(!named(&services, &port(30080), &port(30081)));
    assert!(named(&services, &asked(30080), &asked(30081)));

    let secrets = resource("secrets");
    let token = |kind: &str, token: &str| json!({"type": kind, "data": {"token": token}});
    let issued = "kubernetes.io/service-account-token";
    assert!(!named(&secrets, &token(issued, "a"), &token(issued, "b")));
    assert!(named(&secrets, &token("Opaque", "a"), &token("Opaque", "b")));

    let jobs = resource("jobs.batch");
    let job = |manual: bool, uid: &str| json!({"spec": {"manualSelector": manual, "selector": {"uid": uid}}});
    assert!(!named(&jobs, &job(false, "a"), &job(false, "b")));
    assert!(named(&jobs, &job(true, "a"), &job(true, "b")));

    let roles = resource("clusterroles.rbac.authorization.k8s.io");
    let role = |verb: &str| json!({"rules": [verb]});
    assert!(named(&roles, &role("get"), &role("*")));
}

#[test]
fn a_rule_for_one_type_leaves_others_alone() {
    let priority = |number: u32| json!({"spec": {"priority": number}});
    assert!(!named(&resource("pods"), &priority(1), &priority(2)));
    assert!(named(&resource("pods.example.com"), &priority(1), &priority(2)));
    assert!(named(&resource("widgets.example.com"), &priority(1), &priority(2)));
}

#[test]
fn an_objects_type_is_only_hidden_where_it_is_the_lists() {
    let of = resource("deployments.apps");
    let typed = |version: &str| json!({"apiVersion": version, "kind": "Kind", "spec": {}});
    assert!(!named(&of, &json!({"spec": {}}), &typed("apps/v1")));
    assert!(named(&of, &json!({"spec": {}}), &typed("apps/v2")));
}

#[test]
fn what_is_sanitised_is_equal_to_what_was_captured() {
    for (name, object) in full::objects() {
        let of = resource(name);
        let labels = crate::sanitise::RestoreLabels { backup: "b".into(), restore: "r".into() };
        for labels in [None, Some(labels)] {
            let mapping = crate::sanitise::Mapping { labels, ..Default::default() };
            let crate::sanitise::Sanitised::Create(created) = crate::sanitise::sanitise(&of, object.clone(), &mapping)
            else {
                panic!("{name} is left out")
            };
            let changes = diff(&normalise(&of, object.clone()), &normalise(&of, created));
            assert_eq!(changes, [], "{name}");
        }
    }
}

#[test]
fn normalising_twice_changes_nothing_more() {
    for (name, object) in full::objects() {
        let once = normalise(&resource(name), object);
        assert_eq!(normalise(&resource(name), once.clone()), once, "{name}");
    }
}

#[test]
fn an_object_of_any_shape_is_normalised_without_harm() {
    for object in [json!(null), json!([]), json!("x"), json!({"metadata": [], "spec": {"ports": 7, "volumes": {}}})] {
        for name in ["pods", "services", "jobs.batch", "secrets"] {
            normalise(&resource(name), object.clone());
        }
    }
}

#[test]
fn paths_are_read_as_they_are_published() {
    use Step::{Each, Field};
    assert_eq!(steps("spec.a[].b"), [Field("spec"), Field("a"), Each, Field("b")]);
    assert_eq!(steps(r#"metadata.labels["a.b/c"]"#), [Field("metadata"), Field("labels"), Field("a.b/c")]);
    assert_eq!(steps(r#"data["x.y"].z"#), [Field("data"), Field("x.y"), Field("z")]);
    assert_eq!(steps("secrets[]"), [Field("secrets"), Each]);
}

#[test]
fn the_published_page_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/normalisation.md");
    if std::env::var_os("STILLPOINT_UPDATE_DOCS").is_some() {
        std::fs::write(path, rules_markdown()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page == rules_markdown(), "docs/normalisation.md is stale: run this test with STILLPOINT_UPDATE_DOCS=1");
}
