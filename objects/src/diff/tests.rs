use serde_json::json;
use stillpoint_api::ResourceType;

use super::*;

fn lines(before: Value, after: Value) -> Vec<String> {
    diff(&before, &after).iter().map(ToString::to_string).collect()
}

fn secrets() -> ResourceType {
    ResourceType { name: "secrets".parse().unwrap(), version: "v1".into(), kind: "Secret".into(), namespaced: true }
}

#[test]
fn every_sort_of_difference_is_one_line_that_says_where() {
    let before = json!({"spec": {"replicas": 3, "gone": true, "same": [1, {"a": null}]}});
    let after = json!({"spec": {"replicas": 5, "new": {"x": 1}, "same": [1, {"a": null}]}});
    assert_eq!(
        lines(before, after),
        ["spec.gone: removed true", r#"spec.new: added {"x":1}"#, "spec.replicas: 3 became 5"]
    );
    assert_eq!(lines(json!(1), json!("1")), [r#"the object: 1 became "1""#]);
}

#[test]
fn names_that_would_be_misread_are_quoted() {
    let labels = |value: &str| json!({"metadata": {"labels": {"app.kubernetes.io/name": value}}});
    assert_eq!(lines(labels("a"), labels("b")), [r#"metadata.labels["app.kubernetes.io/name"]: "a" became "b""#]);
}

#[test]
fn an_element_added_to_a_list_with_keys_is_one_difference() {
    let env = |variables: Value| json!({"containers": [{"name": "web", "env": variables}]});
    let before = env(json!([{"name": "A", "value": "1"}, {"name": "C", "value": "3"}]));
    let after = env(json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "4"}]));
    assert_eq!(
        lines(before, after),
        [
            r#"containers[name=web].env[name=C].value: "3" became "4""#,
            r#"containers[name=web].env[name=B]: added {"name":"B","value":"2"}"#,
        ]
    );
}

#[test]
fn ports_are_known_by_number_and_protocol() {
    let before = json!({"ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]});
    let after = json!({"ports": [{"port": 53, "protocol": "TCP", "nodePort": 1}, {"port": 53, "protocol": "UDP"}]});
    assert_eq!(lines(before, after), ["ports[port=53,protocol=TCP].nodePort: added 1"]);
}

#[test]
fn another_order_is_a_difference_of_its_own() {
    let containers = |names: [&str; 2]| json!({"initContainers": names.map(|name| json!({"name": name}))});
    assert_eq!(
        lines(containers(["a", "b"]), containers(["b", "a"])),
        [r#"initContainers[order]: ["name=a","name=b"] became ["name=b","name=a"]"#]
    );
}

#[test]
fn a_list_without_distinct_keys_is_compared_by_position() {
    let env = |value: &str| json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": value}]});
    assert_eq!(lines(env("2"), env("3")), [r#"env[1].value: "2" became "3""#]);
    assert_eq!(lines(json!({"args": ["a"]}), json!({"args": ["a", "b"]})), [r#"args[1]: added "b""#]);
    assert_eq!(lines(json!({"env": [7]}), json!({"env": [8]})), ["env[0]: 7 became 8"]);
}

#[test]
fn claim_templates_are_known_by_their_names() {
    let of = |size: &str| json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": size}]});
    assert_eq!(lines(of("1"), of("2")), [r#"volumeClaimTemplates[name=data].spec: "1" became "2""#]);
}

#[test]
fn there_is_no_difference_only_between_equal_values() {
    let values = [
        json!(null),
        json!({}),
        json!([]),
        json!({"a": null}),
        json!({"a": []}),
        json!({"a": {}}),
        json!({"env": [{"name": "A"}]}),
        json!({"env": [{"name": "A"}, {"name": "A"}]}),
        json!({"env": [{"name": "A"}, {"name": "B"}]}),
        json!({"env": [{"name": "B"}, {"name": "A"}]}),
        json!({"env": [{"name": "A", "value": null}]}),
        json!({"ports": [{"port": 1}]}),
        json!({"ports": [{"port": 1, "protocol": "TCP"}]}),
        json!({"ports": [{"port": "1"}]}),
    ];
    for (i, before) in values.iter().enumerate() {
        for (j, after) in values.iter().enumerate() {
            assert_eq!(diff(before, after).is_empty(), i == j, "{before} {after}");
        }
    }
}

#[test]
fn a_long_value_is_shortened_for_people_at_a_character() {
    let line = &lines(json!({"a": ""}), json!({"a": "ü".repeat(1000)}))[0];
    assert!(line.ends_with("… (2002 bytes)") && line.chars().count() < 200, "{line}");
}

#[test]
fn values_of_secrets_are_hidden_wherever_they_stand() {
    let applied = r#"{"data":{"password":"aHVudGVyMg=="}}"#;
    let secret = json!({
        "metadata": {"name": "db", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}},
        "data": {"password": "aHVudGVyMg==", "tls.key": "aHVudGVyMg=="}, "stringData": {"plain": "hunter2"}});
    let cases = [
        (secret.clone(), json!({})),
        (json!({}), secret.clone()),
        (json!(7), secret.clone()),
        (secret.clone(), json!({"metadata": {"name": "db"}, "data": {}, "stringData": {}})),
        (
            secret.clone(),
            json!({"metadata": {"name": "db", "annotations": {}}, "data": {"password": "b3RoZXI="}, "stringData": {}}),
        ),
        (secret, json!({"data": {"password": {"deep": "aHVudGVyMg=="}}})),
    ];
    for (before, after) in cases {
        let changes = diff(&before, &after);
        let shown = serde_json::to_string(&changes).unwrap();
        assert!(shown.contains("hunter2") || shown.contains("aHVudGVyMg"), "the control: {shown}");
        let redacted = redact(&secrets(), changes.clone());
        let shown = format!("{} {redacted:?}", serde_json::to_string(&redacted).unwrap());
        for value in ["hunter2", "aHVudGVyMg", "b3RoZXI"] {
            assert!(!shown.contains(value), "{value} in {shown}");
        }
        assert_eq!(redacted.len(), changes.len());
    }
}

#[test]
fn a_hidden_value_still_says_that_it_changed_and_how_long_it_is() {
    let changes = diff(&json!({"data": {"password": "aHVudGVyMg=="}}), &json!({"data": {"password": "b3RoZXI="}}));
    assert_eq!(
        redact(&secrets(), changes)[0].to_string(),
        r#"data.password: "<redacted, 7 bytes>" became "<redacted, 5 bytes>""#
    );
}

#[test]
fn other_fields_and_other_types_are_not_hidden() {
    let kind = diff(&json!({"type": "a"}), &json!({"type": "b"}));
    assert_eq!(redact(&secrets(), kind.clone()), kind);
    let data = diff(&json!({"data": {"k": "a"}}), &json!({"data": {"k": "b"}}));
    let maps = ResourceType { name: "configmaps".parse().unwrap(), ..secrets() };
    assert_eq!(redact(&maps, data.clone()), data);
}
