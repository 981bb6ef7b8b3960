//! What a served type is, and the table of the built-in ones.
//!
//! One row a type, because discovery, routing and validation must not disagree; types of a CRD become the same value.

use std::sync::Arc;

use crate::store::TypeMeta;

pub(crate) const CRD_GROUP: &str = "apiextensions.k8s.io";
pub(crate) const CRD_TABLE: &str = "customresourcedefinitions.apiextensions.k8s.io";
pub(crate) const NAMESPACE_TABLE: &str = "namespaces";

/// Which names a type's objects may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    Subdomain,
    Label,
    /// A label that begins with a letter (RFC 1035).
    Dns1035Label,
    PathSegment,
    /// A subdomain that leaves room for the suffix of what is made from it.
    Subdomain52,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Namespaced,
    Cluster,
}

/// Whether `metadata.generation` is kept for a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    Kept,
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    BuiltIn,
    Custom,
}

/// Subresources named in discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subresource {
    Status,
    /// Named in discovery, not served.
    Scale,
}

/// The verbs of every type here.
pub(crate) const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A type in one served version.
#[derive(Clone, Debug)]
pub(crate) struct ResourceType {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) types: TypeMeta,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) scope: Scope,
    pub(crate) subresources: Vec<Subresource>,
    pub(crate) generation: Generation,
    pub(crate) origin: Origin,
    pub(crate) names: NameRule,
    /// JSON pointers that field selectors may name, besides metadata.name and metadata.namespace.
    pub(crate) fields: &'static [&'static str],
    /// Where its objects are stored: `plural.group`, the same for every version.
    pub(crate) table: Arc<str>,
}

impl ResourceType {
    pub(crate) fn kind(&self) -> &str {
        &self.types.kind
    }

    pub(crate) fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.origin == Origin::Custom
    }

    pub(crate) fn has_status(&self) -> bool {
        self.subresources.contains(&Subresource::Status)
    }

    /// The types that a list's items carry: real servers leave them out of lists of built-in types.
    pub(crate) fn item_types(&self) -> Option<&TypeMeta> {
        self.is_custom().then_some(&self.types)
    }

    /// `plural.group`, as messages name a type.
    pub(crate) fn qualified(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    /// The key of an object in the type's table.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        match self.scope {
            Scope::Namespaced => format!("{namespace}/{name}"),
            Scope::Cluster => name.to_owned(),
        }
    }
}

/// `plural.group`, or the plural alone for the core group.
pub(crate) fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// `group/version`, or the version alone for the core group.
pub(crate) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// A row of the table of built-in types.
struct Row {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    scope: Scope,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    subresources: &'static [Subresource],
    generation: Generation,
    names: NameRule,
    fields: &'static [&'static str],
}

const fn row(group: &'static str, version: &'static str, plural: &'static str, kind: &'static str) -> Row {
    Row {
        group,
        version,
        plural,
        kind,
        scope: Scope::Namespaced,
        short_names: &[],
        categories: &[],
        subresources: &[],
        generation: Generation::Absent,
        names: NameRule::Subdomain,
        fields: &[],
    }
}

impl Row {
    const fn cluster(self) -> Self {
        Self { scope: Scope::Cluster, ..self }
    }
    const fn short(self, short_names: &'static [&'static str]) -> Self {
        Self { short_names, ..self }
    }
    const fn all(self) -> Self {
        Self { categories: &["all"], ..self }
    }
    const fn extensions(self) -> Self {
        Self { categories: &["api-extensions"], ..self }
    }
    const fn status(self) -> Self {
        Self { subresources: &[Subresource::Status], ..self }
    }
    const fn scale(self) -> Self {
        Self { subresources: &[Subresource::Status, Subresource::Scale], ..self }
    }
    const fn generation(self) -> Self {
        Self { generation: Generation::Kept, ..self }
    }
    const fn names(self, names: NameRule) -> Self {
        Self { names, ..self }
    }
    const fn fields(self, fields: &'static [&'static str]) -> Self {
        Self { fields, ..self }
    }
}

const EVENT_FIELDS: &[&str] = &[
    "/involvedObject/kind",
    "/involvedObject/namespace",
    "/involvedObject/name",
    "/involvedObject/uid",
    "/reason",
    "/type",
];

const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOWCONTROL: &str = "flowcontrol.apiserver.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// Every built-in type, group by group in the order that discovery names them; a group's first version is preferred.
const BUILT_IN: &[Row] = &[
    row("", "v1", "configmaps", "ConfigMap").short(&["cm"]),
    row("", "v1", "endpoints", "Endpoints").short(&["ep"]),
    row("", "v1", "events", "Event").short(&["ev"]).fields(EVENT_FIELDS),
    row("", "v1", "limitranges", "LimitRange").short(&["limits"]),
    row("", "v1", "namespaces", "Namespace")
        .cluster()
        .short(&["ns"])
        .status()
        .names(NameRule::Label)
        .fields(&["/status/phase"]),
    row("", "v1", "nodes", "Node").cluster().short(&["no"]).status().fields(&["/spec/unschedulable"]),
    row("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim").short(&["pvc"]).status(),
    row("", "v1", "persistentvolumes", "PersistentVolume").cluster().short(&["pv"]).status(),
    row("", "v1", "pods", "Pod").short(&["po"]).all().status().generation().fields(&[
        "/spec/nodeName",
        "/spec/restartPolicy",
        "/spec/schedulerName",
        "/spec/serviceAccountName",
        "/status/phase",
        "/status/podIP",
    ]),
    row("", "v1", "podtemplates", "PodTemplate").generation(),
    row("", "v1", "replicationcontrollers", "ReplicationController").short(&["rc"]).all().scale().generation(),
    row("", "v1", "resourcequotas", "ResourceQuota").short(&["quota"]).status(),
    row("", "v1", "secrets", "Secret").fields(&["/type"]),
    row("", "v1", "serviceaccounts", "ServiceAccount").short(&["sa"]),
    row("", "v1", "services", "Service").short(&["svc"]).all().status().names(NameRule::Dns1035Label),
    row("apiregistration.k8s.io", "v1", "apiservices", "APIService")
        .cluster()
        .extensions()
        .status()
        .names(NameRule::PathSegment),
    row("apps", "v1", "controllerrevisions", "ControllerRevision"),
    row("apps", "v1", "daemonsets", "DaemonSet").short(&["ds"]).all().status().generation(),
    row("apps", "v1", "deployments", "Deployment").short(&["deploy"]).all().scale().generation(),
    row("apps", "v1", "replicasets", "ReplicaSet").short(&["rs"]).all().scale().generation(),
    row("apps", "v1", "statefulsets", "StatefulSet").short(&["sts"]).all().scale().generation(),
    row("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler").short(&["hpa"]).all().status(),
    row("batch", "v1", "cronjobs", "CronJob").short(&["cj"]).all().status().generation().names(NameRule::Subdomain52),
    row("batch", "v1", "jobs", "Job").all().status().generation(),
    row("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest")
        .cluster()
        .short(&["csr"])
        .status()
        .fields(&["/spec/signerName"]),
    row("networking.k8s.io", "v1", "ingressclasses", "IngressClass").cluster().generation(),
    row("networking.k8s.io", "v1", "ingresses", "Ingress").short(&["ing"]).status().generation(),
    row("networking.k8s.io", "v1", "ipaddresses", "IPAddress").cluster().short(&["ip"]).names(NameRule::PathSegment),
    row("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy").short(&["netpol"]).generation(),
    row("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR").cluster().status(),
    row("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget").short(&["pdb"]).status().generation(),
    row(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding").cluster().names(NameRule::PathSegment),
    row(RBAC, "v1", "clusterroles", "ClusterRole").cluster().names(NameRule::PathSegment),
    row(RBAC, "v1", "rolebindings", "RoleBinding").names(NameRule::PathSegment),
    row(RBAC, "v1", "roles", "Role").names(NameRule::PathSegment),
    row(STORAGE, "v1", "csidrivers", "CSIDriver").cluster(),
    row(STORAGE, "v1", "csinodes", "CSINode").cluster(),
    row(STORAGE, "v1", "csistoragecapacities", "CSIStorageCapacity"),
    row(STORAGE, "v1", "storageclasses", "StorageClass").cluster().short(&["sc"]),
    row(STORAGE, "v1", "volumeattachments", "VolumeAttachment").cluster().status(),
    row(STORAGE, "v1", "volumeattributesclasses", "VolumeAttributesClass").cluster().short(&["vac"]),
    row(ADMISSION, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration")
        .cluster()
        .extensions()
        .generation(),
    row(ADMISSION, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy")
        .cluster()
        .extensions()
        .status()
        .generation(),
    row(ADMISSION, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding")
        .cluster()
        .extensions()
        .generation(),
    row(ADMISSION, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
        .cluster()
        .extensions()
        .generation(),
    row(CRD_GROUP, "v1", "customresourcedefinitions", "CustomResourceDefinition")
        .cluster()
        .short(&["crd", "crds"])
        .extensions()
        .status()
        .generation(),
    row("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass").cluster().short(&["pc"]).generation(),
    row("coordination.k8s.io", "v1", "leases", "Lease"),
    row("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass").cluster(),
    row("resource.k8s.io", "v1", "deviceclasses", "DeviceClass").cluster().generation(),
    row("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim").status(),
    row("resource.k8s.io", "v1", "resourceclaimtemplates", "ResourceClaimTemplate"),
    row("resource.k8s.io", "v1", "resourceslices", "ResourceSlice").cluster().generation(),
    row("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice").generation(),
    row(FLOWCONTROL, "v1", "flowschemas", "FlowSchema").cluster().status().generation(),
    row(FLOWCONTROL, "v1", "prioritylevelconfigurations", "PriorityLevelConfiguration").cluster().status().generation(),
];

/// The built-in types.
pub(crate) fn built_in() -> impl Iterator<Item = ResourceType> {
    BUILT_IN.iter().map(|row| ResourceType {
        group: row.group.to_owned(),
        version: row.version.to_owned(),
        plural: row.plural.to_owned(),
        singular: row.kind.to_lowercase(),
        types: TypeMeta { api_version: group_version(row.group, row.version), kind: row.kind.to_owned() },
        list_kind: format!("{}List", row.kind),
        short_names: row.short_names.iter().map(ToString::to_string).collect(),
        categories: row.categories.iter().map(ToString::to_string).collect(),
        scope: row.scope,
        subresources: row.subresources.to_vec(),
        generation: row.generation,
        origin: Origin::BuiltIn,
        names: row.names,
        fields: row.fields,
        table: qualified(row.plural, row.group).into(),
    })
}
