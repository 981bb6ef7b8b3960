//! What an attempt will do with every served type, as a value.
//!
//! Decided before the first list, from discovery, scope and namespaces alone, so that the decision can be read and
//! tested without a cluster.

use std::collections::BTreeMap;

use stillpoint_api::{ClusterResources, ExclusionRule, GroupResource, ResourceType, Scope};
use stillpoint_objects::{discovery::ServedType, filter::Selection};

use crate::unit::{Choice, Unit};

/// Beyond this many namespaces one list across the cluster costs less than one for each.
const MAX_SEPARATE_NAMESPACES: usize = 16;

/// Where namespaced types are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Across the cluster; the selection sorts out what is not wanted.
    Cluster,
    /// In each of these namespaces.
    Namespaces(Vec<String>),
}

impl Reach {
    /// The cheaper way to reach the selected namespaces.
    pub(crate) fn of(scope: &Scope, selected: Vec<String>) -> Self {
        if scope.spans_all_namespaces() || selected.len() > MAX_SEPARATE_NAMESPACES {
            Self::Cluster
        } else {
            Self::Namespaces(selected)
        }
    }
}

/// What happens to one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its objects are captured.
    Captured,
    /// Its objects are captured where captured objects need them.
    ByNeed,
    /// None of its objects are captured.
    Excluded(ExclusionRule),
}

/// Every listable type and its fate, in discovery's order.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) types: Vec<(ResourceType, Fate)>,
    pub(crate) reach: Reach,
}

impl Plan {
    /// `twins` maps a type to the one under which its objects are captured.
    pub(crate) fn make(
        served: &[ServedType],
        scope: &Scope,
        selection: &Selection,
        reach: Reach,
        twins: &BTreeMap<GroupResource, GroupResource>,
    ) -> Self {
        let fate = |served: &ServedType| {
            let resource = &served.resource;
            if let Some(rule) = selection.type_rule(resource, served.verbs.create) {
                return Fate::Excluded(rule);
            }
            if let Some(twin) = twins.get(&resource.name) {
                return Fate::Excluded(ExclusionRule::SameAs(twin.clone()));
            }
            cluster_scoped_fate(resource, scope, selection)
        };
        let types = served.iter().filter(|served| served.verbs.list).map(|s| (s.resource.clone(), fate(s))).collect();
        Self { types, reach }
    }

    /// The units of the types that are captured outright.
    pub(crate) fn units(&self) -> Vec<Unit> {
        let captured = self.types.iter().filter(|(_, fate)| *fate == Fate::Captured);
        captured.flat_map(|(resource, _)| self.units_of(resource)).collect()
    }

    /// The units of one type: where its objects are looked for.
    pub(crate) fn units_of(&self, resource: &ResourceType) -> Vec<Unit> {
        let unit = |namespace| Unit { resource: resource.clone(), namespace, choice: Choice::All };
        match &self.reach {
            Reach::Namespaces(namespaces) if resource.namespaced => {
                namespaces.iter().map(|namespace| unit(Some(namespace.clone()))).collect()
            }
            _ => vec![unit(None)],
        }
    }

    /// The types that are captured by need.
    pub(crate) fn by_need(&self) -> impl Iterator<Item = &ResourceType> {
        self.types.iter().filter(|(_, fate)| *fate == Fate::ByNeed).map(|(resource, _)| resource)
    }
}

fn cluster_scoped_fate(resource: &ResourceType, scope: &Scope, selection: &Selection) -> Fate {
    // the namespaces themselves are chosen by their names, like what is in them
    if resource.namespaced || resource.name.is("", "namespaces") {
        return Fate::Captured;
    }
    match scope.cluster_resources {
        ClusterResources::None => Fate::Excluded(ExclusionRule::ClusterScoped),
        ClusterResources::All => Fate::Captured,
        ClusterResources::Auto if scope.spans_all_namespaces() || selection.names(&resource.name) => Fate::Captured,
        ClusterResources::Auto => Fate::ByNeed,
    }
}

/// Types of several groups that share plural and kind, and so may be the same objects; the one to prefer first.
pub(crate) fn cohabitants(served: &[ServedType]) -> Vec<Vec<&ResourceType>> {
    let mut groups: BTreeMap<(&str, &str), Vec<&ResourceType>> = BTreeMap::new();
    for served in served.iter().filter(|served| served.verbs.list) {
        let resource = &served.resource;
        groups.entry((&resource.name.resource, &resource.kind)).or_default().push(resource);
    }
    let mut groups: Vec<_> = groups.into_values().filter(|group| group.len() > 1).collect();
    for group in &mut groups {
        // discovery lists the preferred group first, except that `extensions` was only ever a nursery
        group.sort_by_key(|resource| resource.name.group == "extensions");
    }
    groups
}
