//! Cluster-scoped objects that captured ones need: taken when a scope names some namespaces only.
//!
//! Types are visited in an order in which needs are found before they are met: bindings name roles and volumes name
//! classes, so both come first. One pass over each type is then enough.

use std::collections::BTreeSet;

use stillpoint_api::{ObjectRef, ResourceType};

use crate::{
    Error,
    plan::Plan,
    unit::{Captured, Choice, Context, Unit},
};

/// Captures what is needed; `needs` are those of the objects captured so far.
pub(crate) async fn capture(
    context: &Context,
    plan: &Plan,
    mut needs: BTreeSet<ObjectRef>,
) -> Result<Vec<(ResourceType, Captured)>, Error> {
    let mut types: Vec<_> = plan.by_need().collect();
    types.sort_by_key(|resource| rank(resource));
    let mut all = Vec::new();
    for resource in types {
        let unit = Unit { resource: resource.clone(), namespace: None, choice: choice(resource, &needs) };
        let captured = unit.capture(context).await?;
        needs.extend(captured.needs.iter().cloned());
        all.push((resource.clone(), captured));
    }
    Ok(all)
}

fn rank(resource: &ResourceType) -> u8 {
    match (resource.name.group.as_str(), resource.name.resource.as_str()) {
        ("rbac.authorization.k8s.io", "clusterrolebindings") | ("", "persistentvolumes") => 0,
        _ => 1,
    }
}

fn choice(resource: &ResourceType, needs: &BTreeSet<ObjectRef>) -> Choice {
    if resource.name.is("rbac.authorization.k8s.io", "clusterrolebindings") {
        let accounts = |need: &&ObjectRef| need.resource.is("", "serviceaccounts");
        return Choice::BindingsOf(needs.iter().filter(accounts).cloned().collect());
    }
    Choice::Needed(needs.iter().filter(|need| need.resource == resource.name).cloned().collect())
}
