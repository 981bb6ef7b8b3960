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

#[cfg(test)]
mod tests {
    use stillpoint_objects::discovery::Verbs;

    use super::*;

    /// A type that can be listed and created, in version v1.
    fn served(name: &str, kind: &str, namespaced: bool) -> ServedType {
        let resource =
            ResourceType { name: name.parse().unwrap(), version: "v1".into(), kind: kind.into(), namespaced };
        ServedType { resource, verbs: Verbs { create: true, list: true, ..Verbs::default() } }
    }

    fn cluster() -> Vec<ServedType> {
        vec![
            served("configmaps", "ConfigMap", true),
            served("namespaces", "Namespace", false),
            served("storageclasses.storage.k8s.io", "StorageClass", false),
            served("clusterroles.rbac.authorization.k8s.io", "ClusterRole", false),
        ]
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn of_shop() -> Scope {
        Scope { include_namespaces: texts(&["shop"]), ..Scope::default() }
    }

    fn make(served: &[ServedType], scope: &Scope, twins: &[(&str, &str)]) -> Plan {
        let twins = twins.iter().map(|(twin, other)| (twin.parse().unwrap(), other.parse().unwrap())).collect();
        let selection = Selection::compile(scope).unwrap();
        Plan::make(served, scope, &selection, Reach::of(scope, texts(&["shop"])), &twins)
    }

    #[track_caller]
    fn assert_fates(plan: &Plan, expected: &[(&str, Fate)]) {
        let fates: Vec<_> = plan.types.iter().map(|(resource, fate)| (resource.name.to_string(), fate)).collect();
        let expected: Vec<_> = expected.iter().map(|(name, fate)| ((*name).to_owned(), fate)).collect();
        assert_eq!(fates, expected);
    }

    #[test]
    fn a_scope_over_the_whole_cluster_takes_every_type_in_discoverys_order() {
        let plan = make(&cluster(), &Scope::default(), &[]);
        assert_fates(
            &plan,
            &[
                ("configmaps.core", Fate::Captured),
                ("namespaces.core", Fate::Captured),
                ("storageclasses.storage.k8s.io", Fate::Captured),
                ("clusterroles.rbac.authorization.k8s.io", Fate::Captured),
            ],
        );
        assert_eq!(plan.by_need().count(), 0);
    }

    #[test]
    fn a_scope_of_some_namespaces_takes_cluster_scoped_types_by_need_but_the_namespaces_outright() {
        let plan = make(&cluster(), &of_shop(), &[]);
        assert_fates(
            &plan,
            &[
                ("configmaps.core", Fate::Captured),
                ("namespaces.core", Fate::Captured),
                ("storageclasses.storage.k8s.io", Fate::ByNeed),
                ("clusterroles.rbac.authorization.k8s.io", Fate::ByNeed),
            ],
        );
        let by_need: Vec<_> = plan.by_need().map(|resource| resource.kind.as_str()).collect();
        assert_eq!(by_need, ["StorageClass", "ClusterRole"]);
    }

    #[test]
    fn a_cluster_scoped_type_that_the_scope_names_is_taken_outright_one_that_a_pattern_meets_is_not() {
        let include_resources = texts(&["storageclasses", "clusterroles*"]);
        let plan = make(&cluster(), &Scope { include_resources, ..of_shop() }, &[]);
        assert_fates(
            &plan,
            &[
                ("configmaps.core", Fate::Excluded(ExclusionRule::Resource)),
                ("namespaces.core", Fate::Captured),
                ("storageclasses.storage.k8s.io", Fate::Captured),
                ("clusterroles.rbac.authorization.k8s.io", Fate::ByNeed),
            ],
        );
    }

    #[test]
    fn all_cluster_resources_are_taken_or_none_where_the_scope_says_so() {
        let all = make(&cluster(), &Scope { cluster_resources: ClusterResources::All, ..of_shop() }, &[]);
        assert!(all.types.iter().all(|(_, fate)| *fate == Fate::Captured), "{:?}", all.types);
        for scope in [Scope::default(), of_shop()] {
            let none = make(&cluster(), &Scope { cluster_resources: ClusterResources::None, ..scope }, &[]);
            assert_fates(
                &none,
                &[
                    ("configmaps.core", Fate::Captured),
                    ("namespaces.core", Fate::Captured),
                    ("storageclasses.storage.k8s.io", Fate::Excluded(ExclusionRule::ClusterScoped)),
                    ("clusterroles.rbac.authorization.k8s.io", Fate::Excluded(ExclusionRule::ClusterScoped)),
                ],
            );
        }
    }

    #[test]
    fn what_records_or_coordinates_is_only_taken_when_it_is_named() {
        let types = [
            served("events", "Event", true),
            served("events.events.k8s.io", "Event", true),
            served("leases.coordination.k8s.io", "Lease", true),
            served("componentstatuses", "ComponentStatus", false),
            served("backups.stillpoint.dev", "Backup", true),
        ];
        let plan = make(&types, &Scope::default(), &[]);
        for (resource, fate) in &plan.types {
            assert_eq!(*fate, Fate::Excluded(ExclusionRule::NotByDefault), "{}", resource.name);
        }
        let include_resources = texts(&["leases.coordination.k8s.io", "*"]);
        let named = make(&types, &Scope { include_resources, ..Scope::default() }, &[]);
        let captured = named.types.iter().filter(|(_, fate)| *fate == Fate::Captured);
        let captured: Vec<_> = captured.map(|(resource, _)| resource.kind.as_str()).collect();
        assert_eq!(captured, ["Lease"]);
    }

    #[test]
    fn a_type_that_cannot_be_created_is_excluded_and_one_that_cannot_be_listed_is_not_named_at_all() {
        let mut read_only = served("nodemetrics.metrics.k8s.io", "NodeMetrics", false);
        read_only.verbs.create = false;
        let mut write_only = served("tokenreviews.authentication.k8s.io", "TokenReview", false);
        write_only.verbs.list = false;
        let plan = make(&[read_only, write_only], &Scope::default(), &[]);
        assert_fates(&plan, &[("nodemetrics.metrics.k8s.io", Fate::Excluded(ExclusionRule::NotCreatable))]);
    }

    #[test]
    fn a_twin_is_excluded_by_the_name_of_the_type_that_is_captured_in_its_place() {
        let types = [
            served("ingresses.networking.k8s.io", "Ingress", true),
            served("ingresses.extensions", "Ingress", true),
            served("events.events.k8s.io", "Event", true),
        ];
        let twins = [("ingresses.extensions", "ingresses.networking.k8s.io"), ("events.events.k8s.io", "events")];
        let plan = make(&types, &Scope::default(), &twins);
        let same = ExclusionRule::SameAs("ingresses.networking.k8s.io".parse().unwrap());
        assert_fates(
            &plan,
            &[
                ("ingresses.networking.k8s.io", Fate::Captured),
                ("ingresses.extensions", Fate::Excluded(same)),
                // the user's rule is the better reason
                ("events.events.k8s.io", Fate::Excluded(ExclusionRule::NotByDefault)),
            ],
        );
    }

    #[test]
    fn few_namespaces_are_listed_one_by_one_and_many_across_the_cluster() {
        let many = |count: usize| (0..count).map(|i| format!("shop-{i}")).collect::<Vec<_>>();
        assert_eq!(Reach::of(&of_shop(), many(0)), Reach::Namespaces(Vec::new()));
        let limit = MAX_SEPARATE_NAMESPACES;
        assert_eq!(Reach::of(&of_shop(), many(limit)), Reach::Namespaces(many(limit)));
        assert_eq!(Reach::of(&of_shop(), many(limit + 1)), Reach::Cluster);
        assert_eq!(Reach::of(&Scope::default(), many(1)), Reach::Cluster);
    }

    #[test]
    fn a_namespaced_type_has_a_unit_for_each_namespace_and_a_cluster_scoped_one_has_one() {
        let (types, scope) = (cluster(), Scope { cluster_resources: ClusterResources::All, ..of_shop() });
        let selection = Selection::compile(&scope).unwrap();
        let units = |reach| {
            let plan = Plan::make(&types[..3], &scope, &selection, reach, &BTreeMap::new());
            let units = plan.units();
            assert!(units.iter().all(|unit| matches!(unit.choice, Choice::All)));
            units.into_iter().map(|unit| (unit.resource.kind, unit.namespace)).collect::<Vec<_>>()
        };
        let unit = |kind: &str, namespace: Option<&str>| (kind.to_owned(), namespace.map(str::to_owned));
        assert_eq!(
            units(Reach::Namespaces(texts(&["shop", "stock"]))),
            [
                unit("ConfigMap", Some("shop")),
                unit("ConfigMap", Some("stock")),
                unit("Namespace", None),
                unit("StorageClass", None),
            ]
        );
        assert_eq!(
            units(Reach::Cluster),
            [unit("ConfigMap", None), unit("Namespace", None), unit("StorageClass", None)]
        );
    }

    #[test]
    fn only_types_that_are_captured_outright_have_units() {
        let exclude_resources = texts(&["configmaps"]);
        let plan = make(&cluster(), &Scope { exclude_resources, ..of_shop() }, &[]);
        let kinds: Vec<_> = plan.units().into_iter().map(|unit| unit.resource.kind).collect();
        assert_eq!(kinds, ["Namespace"]);
        // those of the others are still asked for: what is excluded is counted, what is needed is looked for
        assert_eq!(plan.units_of(&cluster()[0].resource).len(), 1);
    }

    #[test]
    fn types_that_share_plural_and_kind_cohabit_and_extensions_is_never_preferred() {
        let mut hidden = served("ingresses.hidden.example.com", "Ingress", true);
        hidden.verbs.list = false;
        let types = [
            served("events", "Event", true),
            served("ingresses.extensions", "Ingress", true),
            served("ingresses.networking.k8s.io", "Ingress", true),
            hidden,
            served("events.events.k8s.io", "Event", true),
            // the plural alone proves nothing
            served("services", "Service", true),
            served("services.serving.knative.dev", "KnativeService", true),
        ];
        let groups = cohabitants(&types);
        let names = |group: &Vec<&ResourceType>| group.iter().map(|of| of.name.to_string()).collect::<Vec<_>>();
        assert_eq!(
            groups.iter().map(names).collect::<Vec<_>>(),
            [["events.core", "events.events.k8s.io"], ["ingresses.networking.k8s.io", "ingresses.extensions"]]
        );
    }
}
