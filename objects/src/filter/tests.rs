use super::*;

fn resource(name: &str, namespaced: bool) -> ResourceType {
    ResourceType { name: name.parse().unwrap(), version: "v1".into(), kind: "K".into(), namespaced }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn resources(include: &str, exclude: &str) -> Selection {
    let (include_resources, exclude_resources) = (words(include), words(exclude));
    Selection::compile(&Scope { include_resources, exclude_resources, ..Scope::default() }).unwrap()
}

fn rule_of(selection: &Selection, name: &str) -> Option<ExclusionRule> {
    selection.type_rule(&resource(name, true), true)
}

fn object(selection: &Selection, name: &str, json: &str) -> Option<ExclusionRule> {
    selection.object_rule(&resource(name, true), &Meta::parse(json).unwrap())
}

#[test]
fn namespaces_are_taken_by_globs_and_exclusion_wins() {
    let select = |include: &str, exclude: &str| {
        let (include_namespaces, exclude_namespaces) = (words(include), words(exclude));
        Selection::compile(&Scope { include_namespaces, exclude_namespaces, ..Scope::default() }).unwrap()
    };
    for (include, exclude, name, expected) in [
        ("", "", "shop", true),
        ("*", "", "shop", true),
        ("shop*", "", "shop", true),
        ("shop*", "", "shop-eu", true),
        ("shop*", "", "workshop", false),
        ("shop ops", "", "ops", true),
        ("shop*", "shop-test", "shop-test", false),
        ("", "kube-*", "kube-system", false),
        ("", "kube-*", "shop", true),
        ("shop-?", "", "shop-1", true),
        ("shop-[12]", "", "shop-3", false),
        ("{shop,ops}", "", "ops", true),
    ] {
        assert_eq!(select(include, exclude).takes_namespace(name), expected, "{include:?} {exclude:?} {name}");
    }
}

#[test]
fn a_type_is_taken_by_its_plural_or_its_whole_name() {
    for (include, exclude, name, expected) in [
        ("", "", "configmaps", None),
        ("configmaps", "", "configmaps", None),
        ("configmaps.core", "", "configmaps", None),
        ("configmaps", "", "secrets", Some(ExclusionRule::Resource)),
        ("deployments", "", "deployments.apps", None),
        ("deployments.apps", "", "deployments.apps", None),
        ("deployments.extensions", "", "deployments.apps", Some(ExclusionRule::Resource)),
        ("*.apps", "", "statefulsets.apps", None),
        ("*.apps", "", "configmaps", Some(ExclusionRule::Resource)),
        ("*.example.com", "", "orders.shop.example.com", None),
        ("", "secrets", "secrets", Some(ExclusionRule::Resource)),
        ("*", "secrets", "secrets", Some(ExclusionRule::Resource)),
        ("secrets", "*.core", "secrets", Some(ExclusionRule::Resource)),
    ] {
        assert_eq!(rule_of(&resources(include, exclude), name), expected, "{include:?} {exclude:?} {name}");
    }
}

#[test]
fn some_types_are_only_taken_when_they_are_named() {
    for name in [
        "events",
        "events.events.k8s.io",
        "leases.coordination.k8s.io",
        "componentstatuses",
        "backups.stillpoint.dev",
        "widgets.extra.stillpoint.dev",
    ] {
        let not_by_default = Some(ExclusionRule::NotByDefault);
        assert_eq!(rule_of(&resources("", ""), name), not_by_default, "{name}");
        assert_eq!(rule_of(&resources("*", ""), name), not_by_default, "{name} by a wildcard");
        let plural = name.split('.').next().unwrap();
        assert_eq!(rule_of(&resources(plural, ""), name), None, "{name} by its plural");
    }
    assert_eq!(rule_of(&resources("", ""), "events.example.com"), None);
    assert_eq!(rule_of(&resources("", ""), "widgets.notstillpoint.dev"), None);
}

#[test]
fn what_cannot_be_created_is_left_out() {
    let metrics = resource("pods.metrics.k8s.io", true);
    assert_eq!(resources("", "").type_rule(&metrics, false), Some(ExclusionRule::NotCreatable));
    assert_eq!(resources("", "pods").type_rule(&metrics, false), Some(ExclusionRule::Resource));
}

#[test]
fn without_cluster_resources_the_namespaces_still_come() {
    let scope = Scope { cluster_resources: ClusterResources::None, ..Scope::default() };
    let selection = Selection::compile(&scope).unwrap();
    let rule = |name: &str, namespaced: bool| selection.type_rule(&resource(name, namespaced), true);
    assert_eq!(rule("persistentvolumes", false), Some(ExclusionRule::ClusterScoped));
    assert_eq!(rule("namespaces", false), None);
    assert_eq!(rule("configmaps", true), None);
}

#[test]
fn objects_are_left_out_by_the_first_rule_that_applies() {
    let scope =
        Scope { exclude_namespaces: words("kube-*"), label_selector: Some("app=web".into()), ..Scope::default() };
    let selection = Selection::compile(&scope).unwrap();
    for (name, json, expected) in [
        ("configmaps", r#"{"metadata":{"namespace":"shop","name":"a","labels":{"app":"web"}}}"#, None),
        (
            "configmaps",
            r#"{"metadata":{"namespace":"kube-system","name":"a","labels":{"app":"web"}}}"#,
            Some(ExclusionRule::Namespace),
        ),
        ("configmaps", r#"{"metadata":{"namespace":"shop","name":"a"}}"#, Some(ExclusionRule::Selector)),
        (
            "configmaps",
            r#"{"metadata":{"namespace":"shop","name":"a","labels":{"app":"web",
                "stillpoint.dev/exclude-from-backup":"true"}}}"#,
            Some(ExclusionRule::ExcludeLabel),
        ),
        (
            "configmaps",
            r#"{"metadata":{"namespace":"shop","name":"a","labels":{"app":"web",
                "velero.io/exclude-from-backup":"true"}}}"#,
            Some(ExclusionRule::ExcludeLabel),
        ),
        (
            "configmaps",
            r#"{"metadata":{"namespace":"shop","name":"a","labels":{"app":"web",
                "velero.io/exclude-from-backup":"false"}}}"#,
            None,
        ),
        (
            "configmaps",
            r#"{"metadata":{"namespace":"shop","name":"a","labels":{"app":"web"},"deletionTimestamp":"t"}}"#,
            Some(ExclusionRule::BeingDeleted),
        ),
        ("persistentvolumes", r#"{"metadata":{"name":"a","labels":{"app":"web"}}}"#, None),
        ("persistentvolumes", r#"{"metadata":{"name":"kube-a"}}"#, Some(ExclusionRule::Selector)),
        ("namespaces", r#"{"metadata":{"name":"shop"}}"#, None),
        ("namespaces", r#"{"metadata":{"name":"kube-system"}}"#, Some(ExclusionRule::Namespace)),
    ] {
        assert_eq!(object(&selection, name, json), expected, "{name} {json}");
    }
}

#[test]
fn endpoints_are_left_out_only_where_a_controller_says_that_it_wrote_them() {
    let slice = "endpointslices.discovery.k8s.io";
    let from_service = Some(ExclusionRule::OwnedByService);
    let cases = [
        (
            slice,
            r#"{"metadata":{"name":"a","ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"a"}]}}"#,
            true,
        ),
        (
            slice,
            r#"{"metadata":{"name":"a","ownerReferences":[{"apiVersion":"v1","kind":"Endpoints","name":"a"}]}}"#,
            true,
        ),
        (
            slice,
            r#"{"metadata":{"name":"a","labels":{
                "endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io"}}}"#,
            true,
        ),
        (slice, r#"{"metadata":{"name":"a","labels":{"kubernetes.io/service-name":"a"}}}"#, false),
        (slice, r#"{"metadata":{"name":"a","labels":{"endpointslice.kubernetes.io/managed-by":"me"}}}"#, false),
        (slice, r#"{"metadata":{"name":"a","ownerReferences":[{"apiVersion":"x.dev/v1","kind":"Service"}]}}"#, false),
        (
            "endpoints",
            r#"{"metadata":{"name":"a","annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"t"}}}"#,
            true,
        ),
        (
            "endpoints",
            r#"{"metadata":{"name":"a","labels":{"endpoints.kubernetes.io/managed-by":"endpoint-controller"}}}"#,
            true,
        ),
        ("endpoints", r#"{"metadata":{"name":"a","annotations":{"note":"mine"}}}"#, false),
        ("configmaps", r#"{"metadata":{"name":"a","ownerReferences":[{"apiVersion":"v1","kind":"Service"}]}}"#, false),
    ];
    for (name, json, made) in cases {
        assert_eq!(object(&resources("", ""), name, json), from_service.clone().filter(|_| made), "{name} {json}");
        assert_eq!(object(&resources("endpoints endpointslices", ""), name, json), None, "named: {json}");
    }
}

#[test]
fn patterns_that_match_no_type_are_told() {
    let served: [GroupResource; 2] = ["deployments.apps", "configmaps"].map(|name| name.parse().unwrap());
    let selection = resources("deployments configmapz *.apps orders.example.com", "");
    assert_eq!(selection.unmatched_types(served.iter()), ["configmapz", "orders.example.com"]);
    assert!(resources("", "nothing").unmatched_types(served.iter()).is_empty());
}

#[test]
fn patterns_that_match_no_namespace_are_told() {
    let scope = Scope { include_namespaces: words("shop* shpo prod"), ..Scope::default() };
    let existing = ["default", "shop-1", "prod"].map(str::to_owned);
    assert_eq!(Selection::compile(&scope).unwrap().unmatched_namespaces(&existing), ["shpo"]);
}

#[test]
fn the_namespaces_of_included_types_come_along_unless_excluded() {
    let namespaces = resource("namespaces", false);
    assert_eq!(resources("deployments", "").type_rule(&namespaces, true), None);
    assert_eq!(resources("deployments", "namespaces").type_rule(&namespaces, true), Some(ExclusionRule::Resource));
}

#[test]
fn a_pattern_that_cannot_be_read_is_refused_by_name() {
    let scope = Scope { include_namespaces: words("shop[ ok"), ..Scope::default() };
    let error = Selection::compile(&scope).unwrap_err();
    assert!(matches!(&error, Error::Pattern { pattern, .. } if pattern == "shop["), "{error}");
    let scope = Scope { label_selector: Some("a b".into()), ..Scope::default() };
    assert!(matches!(Selection::compile(&scope).unwrap_err(), Error::Selector { .. }));
}
