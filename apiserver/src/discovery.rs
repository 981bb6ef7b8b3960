//! Discovery: which types are served, in the legacy documents and in the aggregated one.
//!
//! Everything is derived from the registry at the moment of the request: a CRD is visible as soon as it is established.

use std::cmp::{Ordering, Reverse};

use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    refusal::{Refusal, json_response},
    registry::Types,
    types::{ResourceType, Subresource, VERBS, group_version},
};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/version`
pub(crate) fn version(kubernetes: &str) -> Response {
    let mut numbers = kubernetes.trim_start_matches('v').split('.');
    ok(json!({
        "major": numbers.next().unwrap_or_default(),
        "minor": numbers.next().unwrap_or_default(),
        "gitVersion": format!("{kubernetes}+stillpoint"),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }))
}

/// `/api`
pub(crate) fn core_versions(types: &Types, headers: &HeaderMap) -> Response {
    if wants_aggregated(headers) {
        return aggregated(types, &[String::new()]);
    }
    ok(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))
}

/// `/apis`
pub(crate) fn groups(types: &Types, headers: &HeaderMap) -> Response {
    let names = group_names(types);
    if wants_aggregated(headers) {
        return aggregated(types, &names);
    }
    let groups: Vec<Value> = names.iter().map(|group| api_group(types, group)).collect();
    ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// `/apis/GROUP`
pub(crate) fn group(types: &Types, group: &str) -> Result<Response, Refusal> {
    if versions(types, group).is_empty() {
        return Err(Refusal::no_such_path());
    }
    let mut document = api_group(types, group);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Ok(ok(document))
}

/// `/api/v1` and `/apis/GROUP/VERSION`
pub(crate) fn resources(types: &Types, group: &str, version: &str) -> Result<Response, Refusal> {
    let resources: Vec<Value> = in_version(types, group, version).flat_map(legacy_resources).collect();
    if resources.is_empty() {
        return Err(Refusal::no_such_path());
    }
    Ok(ok(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": resources,
    })))
}

fn ok(document: Value) -> Response {
    json_response(StatusCode::OK, document.to_string().into_bytes())
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|range| {
        let has = |parameter: &str| range.split(';').any(|part| part.trim() == parameter);
        has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
    })
}

/// The named groups: the built-in ones in their order, then those of CRDs.
fn group_names(types: &Types) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for resource in types.all().filter(|resource| !resource.group.is_empty()) {
        if !names.contains(&resource.group) {
            names.push(resource.group.clone());
        }
    }
    names
}

fn in_version<'a>(types: &'a Types, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a ResourceType> {
    types.all().map(AsRef::as_ref).filter(move |resource| resource.group == group && resource.version == version)
}

/// The versions of a group, the preferred one first.
fn versions(types: &Types, group: &str) -> Vec<String> {
    let of_group = types.all().filter(|resource| resource.group == group);
    let mut versions: Vec<String> = of_group.map(|resource| resource.version.clone()).collect();
    versions.sort_by(|a, b| compare_versions(a, b));
    versions.dedup();
    versions
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Stability {
    Alpha,
    Beta,
    Stable,
}

/// Kubernetes' order of versions: stable before beta before alpha, higher before lower, anything else last.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let key = |version| Reverse(parse_version(version));
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

fn parse_version(version: &str) -> Option<(Stability, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    for (word, stability) in [("alpha", Stability::Alpha), ("beta", Stability::Beta)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, major.parse().ok()?, minor.parse().ok()?));
        }
    }
    Some((Stability::Stable, rest.parse().ok()?, 0))
}

fn api_group(types: &Types, group: &str) -> Value {
    let versions: Vec<Value> = versions(types, group)
        .iter()
        .map(|version| json!({"groupVersion": group_version(group, version), "version": version}))
        .collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

fn legacy_resources(resource: &ResourceType) -> Vec<Value> {
    let mut main = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.is_namespaced(),
        "kind": resource.kind(),
        "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        main["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        main["categories"] = json!(resource.categories);
    }
    let subresources = resource.subresources.iter().map(|subresource| {
        let (name, group, version, kind) = describe(resource, *subresource);
        json!({
            "name": format!("{}/{name}", resource.plural),
            "singularName": "",
            "namespaced": resource.is_namespaced(),
            "group": group,
            "version": version,
            "kind": kind,
            "verbs": SUBRESOURCE_VERBS,
        })
    });
    std::iter::once(main).chain(subresources).collect()
}

const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Name, group, version and kind of a subresource.
fn describe(resource: &ResourceType, subresource: Subresource) -> (&str, &str, &str, &str) {
    match subresource {
        Subresource::Status => ("status", &resource.group, &resource.version, resource.kind()),
        Subresource::Scale => ("scale", "autoscaling", "v1", "Scale"),
    }
}

fn aggregated(types: &Types, groups: &[String]) -> Response {
    let items: Vec<Value> = groups.iter().map(|group| aggregated_group(types, group)).collect();
    let mut response = ok(json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
    response
}

fn aggregated_group(types: &Types, group: &str) -> Value {
    let versions: Vec<Value> = versions(types, group)
        .iter()
        .map(|version| {
            let resources: Vec<Value> = in_version(types, group, version).map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &ResourceType) -> Value {
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|subresource| {
            let (name, group, version, kind) = describe(resource, *subresource);
            let response_kind = json!({"group": group, "version": version, "kind": kind});
            json!({"subresource": name, "responseKind": response_kind, "verbs": SUBRESOURCE_VERBS})
        })
        .collect();
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind()});
    json!({
        "resource": resource.plural,
        "responseKind": kind,
        "scope": if resource.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": VERBS,
        "shortNames": resource.short_names,
        "categories": resource.categories,
        "subresources": subresources,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_kubernetes_prefers_them() {
        let mut versions = ["v1alpha1", "v2beta1", "foo1", "v1", "v10", "v2", "v1beta2", "v12alpha1"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v12alpha1", "v1alpha1", "foo1"]);
    }
}
