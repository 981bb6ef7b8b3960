//! In which order kinds are created.
//!
//! Levels, not a list of kinds: what stands on one level can be created at once, and a kind that nobody has heard of
//! has a place. Owners before what they own is another order, which only the objects themselves can tell.
//!
//! | level | kinds | why there |
//! |---|---|---|
//! | definitions | CustomResourceDefinitions | nothing of their types exists before them |
//! | namespaces | Namespaces | everything namespaced lies in one |
//! | classes | Storage-, Ingress-, Priority-, Runtime-, Gateway-, VolumeSnapshot-, VolumeAttributes- and DeviceClasses, CSIDrivers, PriorityLevelConfigurations | named by what follows; a Pod whose PriorityClass or RuntimeClass is missing is refused |
//! | volumes | VolumeSnapshotContents, VolumeSnapshots, PersistentVolumes, PersistentVolumeClaims | a claim binds to what is there when it comes, and Pods mount claims |
//! | rbac | ServiceAccounts, Roles, RoleBindings and their cluster-wide forms | a Pod whose ServiceAccount is missing is refused; what runs needs its rights from the first moment |
//! | config | Secrets, ConfigMaps, LimitRanges, NetworkPolicies | Pods read them as they start, and must not run for a moment without their policies |
//! | services | Endpoints, EndpointSlices, Services | Pods are told of Services as they start; hand-written Endpoints first, so that none are made in their place |
//! | workloads | Pods and all that makes them | |
//! | rest | everything else: custom objects, Ingresses, autoscalers, disruption budgets, quotas | a quota without a computed status would refuse Pods |
//! | late | webhook configurations, admission policies and their bindings, APIServices | they judge or divert other requests, and what serves them must run first |

use std::fmt;

use serde::Serialize;
use stillpoint_api::GroupResource;

/// When a kind is created; earlier levels are lesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Definitions of custom types.
    CustomResourceDefinitions,
    /// Namespaces.
    Namespaces,
    /// Cluster-wide classes that others name.
    Classes,
    /// Volumes and claims.
    Volumes,
    /// Identities and their rights.
    Rbac,
    /// What Pods read or are bound by as they start.
    Config,
    /// Services and hand-written endpoints.
    Services,
    /// Pods and all that makes them.
    Workloads,
    /// Everything else.
    Rest,
    /// What judges or diverts other requests.
    Late,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CustomResourceDefinitions => "definitions",
            Self::Namespaces => "namespaces",
            Self::Classes => "classes",
            Self::Volumes => "volumes",
            Self::Rbac => "rbac",
            Self::Config => "config",
            Self::Services => "services",
            Self::Workloads => "workloads",
            Self::Rest => "rest",
            Self::Late => "late",
        })
    }
}

/// The level of a type.
pub fn level(resource: &GroupResource) -> Level {
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("apiextensions.k8s.io", "customresourcedefinitions") => Level::CustomResourceDefinitions,
        ("", "namespaces") => Level::Namespaces,
        ("storage.k8s.io", "storageclasses" | "csidrivers" | "volumeattributesclasses")
        | ("snapshot.storage.k8s.io", "volumesnapshotclasses")
        | ("groupsnapshot.storage.k8s.io", "volumegroupsnapshotclasses")
        | ("networking.k8s.io" | "extensions", "ingressclasses")
        | ("gateway.networking.k8s.io", "gatewayclasses")
        | ("scheduling.k8s.io", "priorityclasses")
        | ("node.k8s.io", "runtimeclasses")
        | ("resource.k8s.io", "deviceclasses")
        | ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => Level::Classes,
        ("", "persistentvolumes" | "persistentvolumeclaims")
        | ("snapshot.storage.k8s.io" | "groupsnapshot.storage.k8s.io", _) => Level::Volumes,
        ("", "serviceaccounts") | ("rbac.authorization.k8s.io", _) => Level::Rbac,
        ("", "secrets" | "configmaps" | "limitranges") | ("networking.k8s.io" | "extensions", "networkpolicies") => {
            Level::Config
        }
        ("", "services" | "endpoints") | ("discovery.k8s.io", "endpointslices") => Level::Services,
        ("", "pods" | "replicationcontrollers" | "podtemplates")
        | ("apps", _)
        | ("batch", _)
        | ("extensions", "deployments" | "daemonsets" | "replicasets") => Level::Workloads,
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Level::Late,
        _ => Level::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Level {
        level(&name.parse().unwrap())
    }

    #[test]
    fn what_is_needed_comes_before_what_needs_it() {
        for (first, then) in [
            ("customresourcedefinitions.apiextensions.k8s.io", "orders.shop.example.com"),
            ("namespaces", "configmaps"),
            ("storageclasses.storage.k8s.io", "persistentvolumeclaims"),
            ("persistentvolumes", "pods"),
            ("persistentvolumeclaims", "statefulsets.apps"),
            ("serviceaccounts", "pods"),
            ("clusterroles.rbac.authorization.k8s.io", "pods"),
            ("secrets", "deployments.apps"),
            ("networkpolicies.networking.k8s.io", "pods"),
            ("priorityclasses.scheduling.k8s.io", "pods"),
            ("services", "pods"),
            ("services", "ingresses.networking.k8s.io"),
            ("pods", "resourcequotas"),
            ("deployments.apps", "validatingwebhookconfigurations.admissionregistration.k8s.io"),
            ("orders.shop.example.com", "mutatingwebhookconfigurations.admissionregistration.k8s.io"),
            ("services", "apiservices.apiregistration.k8s.io"),
        ] {
            assert!(of(first) < of(then), "{first} before {then}");
        }
    }

    #[test]
    fn a_kind_that_nobody_has_heard_of_is_neither_early_nor_late() {
        assert_eq!(of("widgets.example.com"), Level::Rest);
        // a custom type may borrow the plural of a built-in one
        assert_eq!(of("secrets.example.com"), Level::Rest);
        assert_eq!(of("namespaces.example.com"), Level::Rest);
    }
}
