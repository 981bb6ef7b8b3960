use super::*;

fn aggregated_groups(json: &str) -> Vec<Outcome> {
    document::from_aggregated(serde_json::from_str(json).unwrap())
}

fn names(discovery: &Discovery) -> Vec<String> {
    discovery.types.iter().map(|served| format!("{} {}", served.resource.name, served.resource.version)).collect()
}

fn failures(discovery: &Discovery) -> Vec<&str> {
    discovery.failures.iter().map(|failure| failure.subject.as_str()).collect()
}

const AGGREGATED: &str = r#"{"kind":"APIGroupDiscoveryList","items":[
    {"metadata":{"name":"shop.example.com"},"versions":[
        {"version":"v1","freshness":"Current","resources":[
            {"resource":"orders","responseKind":{"kind":"Order"},"scope":"Namespaced","verbs":["list","create"],
             "subresources":[{"subresource":"status","verbs":["get"]}]}]},
        {"version":"v1beta2","freshness":"Current","resources":[
            {"resource":"orders","responseKind":{"kind":"Order"},"scope":"Namespaced","verbs":["list","create"]},
            {"resource":"carts","responseKind":{"kind":"Cart"},"scope":"Cluster","verbs":["list"]}]},
        {"version":"v1beta10","freshness":"Current","resources":[
            {"resource":"carts","responseKind":{"kind":"Cart"},"scope":"Cluster","verbs":["list"]}]}]},
    {"metadata":{"name":"metrics.k8s.io"},"versions":[
        {"version":"v1beta1","freshness":"Stale","resources":[
            {"resource":"pods","responseKind":{"kind":"PodMetrics"},"scope":"Namespaced","verbs":["list","get"]}]}]},
    {"metadata":{"name":"odd.example.com"},"versions":[
        {"version":"v1","freshness":"Current","resources":[
            {"resource":"onlysubresources","responseKind":{},"scope":"Cluster","verbs":[]}]},
        {"version":"v2","freshness":"Current","resources":[
            {"resource":"kindless","responseKind":null,"scope":"Cluster","verbs":["list"]}]}]}]}"#;

#[test]
fn a_type_is_served_in_the_preferred_version_or_the_best_that_has_it() {
    let discovery = assemble("v1".into(), aggregated_groups(AGGREGATED));
    assert_eq!(names(&discovery), ["carts.shop.example.com v1beta10", "orders.shop.example.com v1"]);
    let orders = &discovery.types[1];
    assert!(orders.resource.namespaced && orders.verbs.list && orders.verbs.create && !orders.verbs.watch);
    assert!(!discovery.types[0].resource.namespaced);
}

#[test]
fn a_stale_group_and_a_document_that_lacks_names_are_failures_by_name() {
    let discovery = assemble("v1".into(), aggregated_groups(AGGREGATED));
    assert_eq!(failures(&discovery), ["metrics.k8s.io/v1beta1", "odd.example.com/v2"]);
    assert!(discovery.failures.iter().all(|failure| failure.kind == ProblemKind::Discovery));
}

#[test]
fn a_plain_document_says_the_same() {
    let list: APIGroupList = serde_json::from_str(
        r#"{"groups":[{"name":"shop.example.com","preferredVersion":{"groupVersion":"shop.example.com/v1","version":"v1"},
            "versions":[{"groupVersion":"shop.example.com/v2alpha1","version":"v2alpha1"},
                {"groupVersion":"shop.example.com/v1","version":"v1"}]}]}"#,
    )
    .unwrap();
    let versions = document::ranked_versions(&list.groups[0]);
    assert_eq!(
        versions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["shop.example.com/v1", "shop.example.com/v2alpha1"]
    );
    assert_eq!(versions[0].path(), "/apis/shop.example.com/v1");
    assert_eq!(GroupVersion::new("", "v1", 0).path(), "/api/v1");

    let resources: APIResourceList = serde_json::from_str(
        r#"{"groupVersion":"shop.example.com/v1","resources":[
            {"name":"orders","singularName":"","namespaced":true,"kind":"Order","verbs":["list","create","get"]},
            {"name":"orders/status","singularName":"","namespaced":true,"kind":"Order","verbs":["get"]}]}"#,
    )
    .unwrap();
    let outcomes = vec![
        Outcome::Served(document::from_plain(&versions[1], &resources)),
        Outcome::Served(document::from_plain(&versions[0], &resources)),
        Outcome::Failed(GroupVersion::new("gone.example.com", "v1", 0), "503".into()),
    ];
    let discovery = assemble("v1".into(), outcomes);
    assert_eq!(names(&discovery), ["orders.shop.example.com v1"]);
    assert_eq!(failures(&discovery), ["gone.example.com/v1"]);
}

#[test]
fn the_form_of_a_document_is_known_by_its_kind() {
    assert!(aggregated("discover", AGGREGATED.as_bytes()).unwrap().is_some());
    assert!(aggregated("discover", br#"{"kind":"APIGroupList","groups":[]}"#).unwrap().is_none());
    assert!(matches!(aggregated("discover", b"<html>"), Err(Error::Unreadable { .. })));
}

#[test]
fn a_type_is_found_by_its_name_and_by_its_kind() {
    let discovery = assemble("v1".into(), aggregated_groups(AGGREGATED));
    let orders: GroupResource = "orders.shop.example.com".parse().unwrap();
    assert_eq!(discovery.get(&orders).unwrap().resource.kind, "Order");
    assert!(discovery.get(&"pods".parse().unwrap()).is_none());
    assert_eq!(discovery.of_kind("shop.example.com/v1beta2", "Order").unwrap().resource.name, orders);
    assert!(discovery.of_kind("v1", "Order").is_none() && discovery.of_kind("shop.example.com/v1", "Pod").is_none());
}
