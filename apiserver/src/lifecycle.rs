//! What happens to namespaces and CRDs without anybody asking: their first objects, and the end of all of them.
//!
//! One owned task makes passes over what is being deleted, woken by every write; a pass is idempotent, so nothing is
//! lost when it is stopped midway.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::{
    api::{Api, Target},
    crd::CLEANUP_FINALIZER,
    draft::Part,
    list::prefix,
    refusal::Refusal,
    store::{Found, Mode, Range},
    types::{CRD_GROUP, CRD_TABLE, NAMESPACE_TABLE, ResourceType},
    validate::items,
    write::{self, DeleteOptions},
};

/// Objects deleted between two looks at the stop signal.
const BATCH: usize = 512;

/// Namespaces that exist from the start.
const FIRST_NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Creates what a cluster has from the start.
pub(crate) fn furnish_cluster(api: &Api) -> Result<(), Refusal> {
    for name in FIRST_NAMESPACES {
        create(api, "namespaces", "", json!({"metadata": {"name": name}}))?;
    }
    Ok(())
}

/// Gives a new namespace what a real cluster's controllers give it.
pub(crate) fn furnish(api: &Api, namespace: &str) {
    let certificates = json!({
        "metadata": {"name": "kube-root-ca.crt"},
        "data": {"ca.crt": ""},
    });
    let account = json!({"metadata": {"name": "default"}});
    for (plural, object) in [("serviceaccounts", account), ("configmaps", certificates)] {
        // A namespace deleted in the same moment needs neither.
        if let Err(refusal) = create(api, plural, namespace, object) {
            tracing::debug!(namespace, plural, %refusal, "first object of a namespace was not created");
        }
    }
}

fn create(api: &Api, plural: &str, namespace: &str, object: Value) -> Result<(), Refusal> {
    let resource = api.registry.types().find("", "v1", plural).ok_or_else(Refusal::no_such_path)?;
    let target = Target { resource, namespace: namespace.to_owned(), name: String::new() };
    write::create(api, &target, object, Mode::Commit).map(|_| ())
}

/// Makes passes until the server stops.
pub(crate) async fn run(api: Arc<Api>) {
    loop {
        tokio::select! {
            () = api.lifecycle.notified() => {}
            () = api.stop.cancelled() => return,
        }
        let pass_api = Arc::clone(&api);
        if tokio::task::spawn_blocking(move || pass(&pass_api)).await.is_err() {
            tracing::error!("emptying deleted namespaces failed; they stay Terminating until the next write");
        }
    }
}

fn pass(api: &Api) {
    for namespace in deleting(api, NAMESPACE_TABLE) {
        if empty(api, &namespace_types(api), &prefix(&namespace)) {
            release(api, "", "namespaces", &namespace, |object| object["spec"]["finalizers"] = json!([]));
        }
    }
    for crd in deleting(api, CRD_TABLE) {
        let of_crd: Vec<_> = api.registry.types().of_crd(&crd).first().cloned().into_iter().collect();
        if empty(api, &of_crd, "") {
            release(api, CRD_GROUP, "customresourcedefinitions", &crd, |object| {
                let rest = items(object, "/metadata/finalizers").iter();
                let rest: Vec<Value> = rest.filter(|name| *name != CLEANUP_FINALIZER).cloned().collect();
                object["metadata"]["finalizers"] = rest.into();
            });
        }
    }
}

/// The names in `table` whose deletion was asked for.
fn deleting(api: &Api, table: &str) -> Vec<String> {
    let page = api.store.scan(table, &Range::default(), None, usize::MAX, |_, object| object.is_deleting());
    page.map(|page| page.items.iter().map(|found| found.key.to_string()).collect()).unwrap_or_default()
}

/// One type a table: versions of a type share their objects.
fn namespace_types(api: &Api) -> Vec<Arc<ResourceType>> {
    let types = api.registry.types();
    let namespaced = types.all().filter(|resource| resource.is_namespaced());
    let by_table: BTreeMap<_, _> = namespaced.map(|t| (Arc::clone(&t.table), Arc::clone(t))).collect();
    by_table.into_values().collect()
}

/// Deletes the objects of `types` under `prefix`; true if none is left.
fn empty(api: &Api, types: &[Arc<ResourceType>], prefix: &str) -> bool {
    // Every type is tried, also after one that could not be emptied.
    types.iter().filter(|resource| !empty_type(api, resource, prefix)).count() == 0
}

fn empty_type(api: &Api, resource: &Arc<ResourceType>, prefix: &str) -> bool {
    let mut range = Range { prefix: prefix.to_owned(), after: None };
    let mut left = false;
    while !api.stop.is_cancelled() {
        let Ok(page) = api.store.scan(&resource.table, &range, None, BATCH, |_, _| true) else { return false };
        for found in &page.items {
            left |= !delete(api, resource, found);
        }
        range.after = page.items.last().map(|last| last.key.to_string());
        if !page.more {
            return !left;
        }
    }
    false
}

/// Deletes one object; true if it is gone.
fn delete(api: &Api, resource: &Arc<ResourceType>, found: &Found) -> bool {
    let (namespace, name) = found.key.rsplit_once('/').unwrap_or(("", &found.key));
    let resource = Arc::clone(resource);
    let target = Target { resource, namespace: namespace.to_owned(), name: name.to_owned() };
    if found.object.is_deleting() {
        return false;
    }
    match write::delete(api, &target, &DeleteOptions::default(), Mode::Commit) {
        Ok(write::Deleted::Gone(_)) => true,
        Ok(write::Deleted::Pending(_)) => false,
        Err(refusal) => refusal.is_not_found(),
    }
}

/// Takes the server's own hold off an emptied object; it is gone once nobody else holds it.
fn release(api: &Api, group: &str, plural: &str, name: &str, change: impl Fn(&mut Value)) {
    let Some(resource) = api.registry.types().find(group, "v1", plural) else { return };
    let target = Target { resource, namespace: String::new(), name: name.to_owned() };
    let released = write::update(api, &target, Part::Finalize, Mode::Commit, |present| {
        let mut object = present.clone();
        change(&mut object);
        Ok(object)
    });
    if let Err(refusal) = released
        && !refusal.is_not_found()
    {
        tracing::warn!(name, plural, %refusal, "an emptied object could not be released");
    }
}
