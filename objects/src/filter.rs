//! Which types and objects a scope takes, and by which rule the others are left out.
//!
//! Every answer is a rule and never just "no", because the manifest counts what was left out by rule.
//!
//! Patterns of types are matched against `resource.group` (`core` for the core group); a pattern without a dot matches
//! the plural in every group, so that `deployments` means what a user of kubectl means by it. A type is *named* by a
//! pattern without wildcards, and only that brings in what is not captured by default.

use globset::{GlobBuilder, GlobMatcher};
use stillpoint_api::{ClusterResources, ExclusionRule, GroupResource, ResourceType, Scope};

use crate::{Error, list::Meta, selector::LabelSelector};

/// Labels that exclude an object when their value is `true`.
pub(crate) const EXCLUDE_LABELS: [&str; 2] = ["stillpoint.dev/exclude-from-backup", "velero.io/exclude-from-backup"];
/// Says who writes an EndpointSlice.
const SLICE_MANAGER: &str = "endpointslice.kubernetes.io/managed-by";
/// Said by the endpoints controller since Kubernetes 1.33.
const ENDPOINTS_MANAGER: &str = "endpoints.kubernetes.io/managed-by";

/// A scope that is ready to be asked.
#[derive(Debug, Clone)]
pub struct Selection {
    namespaces: Choice,
    resources: Choice,
    labels: Option<LabelSelector>,
    cluster_resources: ClusterResources,
}

impl Selection {
    /// Reads a scope's patterns and selector.
    ///
    /// # Errors
    /// A pattern or the selector cannot be read.
    pub fn compile(scope: &Scope) -> Result<Self, Error> {
        Ok(Self {
            namespaces: Choice::compile(&scope.include_namespaces, &scope.exclude_namespaces)?,
            resources: Choice::compile(&scope.include_resources, &scope.exclude_resources)?,
            labels: scope.label_selector.as_deref().map(LabelSelector::parse).transpose()?,
            cluster_resources: scope.cluster_resources,
        })
    }

    /// Whether the scope takes what is in a namespace, and the namespace itself.
    pub fn takes_namespace(&self, name: &str) -> bool {
        !self.namespaces.excludes(&[name]) && self.namespaces.includes(&[name])
    }

    /// Whether the scope includes a type by name, without wildcards.
    pub fn names(&self, resource: &GroupResource) -> bool {
        self.resources.names(&spellings(resource))
    }

    /// The scope's patterns of types to include that match none of these: a user's typing error, or a type that is not
    /// served.
    pub fn unmatched_types<'a>(&self, served: impl Iterator<Item = &'a GroupResource> + Clone) -> Vec<&str> {
        self.resources.unmatched(|pattern| served.clone().any(|name| pattern.matches(&spellings(name))))
    }

    /// The scope's patterns of namespaces to include that match none of these.
    pub fn unmatched_namespaces(&self, existing: &[String]) -> Vec<&str> {
        self.namespaces.unmatched(|pattern| existing.iter().any(|name| pattern.matches(&[name])))
    }

    /// The rule that leaves out a whole type; `creatable` says whether the server lets its objects be created.
    ///
    /// Namespaces are not left out with the cluster-scoped types, nor for want of a pattern that includes them: each is
    /// chosen by its name, like what is in it, and without it nothing of that could be restored.
    pub fn type_rule(&self, resource: &ResourceType, creatable: bool) -> Option<ExclusionRule> {
        let spellings = spellings(&resource.name);
        let is_namespaces = resource.name.is("", "namespaces");
        let cluster_scoped = !resource.namespaced && !is_namespaces;
        if self.resources.excludes(&spellings) || !(is_namespaces || self.resources.includes(&spellings)) {
            Some(ExclusionRule::Resource)
        } else if cluster_scoped && self.cluster_resources == ClusterResources::None {
            Some(ExclusionRule::ClusterScoped)
        } else if !creatable {
            Some(ExclusionRule::NotCreatable)
        } else if only_when_named(&resource.name) && !self.names(&resource.name) {
            Some(ExclusionRule::NotByDefault)
        } else {
            None
        }
    }

    /// The rule that leaves out one object of a type that is taken.
    ///
    /// The label selector does not ask Namespaces: a namespace without the label may hold objects that have it.
    pub fn object_rule(&self, resource: &ResourceType, meta: &Meta<'_>) -> Option<ExclusionRule> {
        let is_namespace = resource.name.is("", "namespaces");
        let place = if is_namespace { Some(meta.name.as_ref()) } else { meta.namespace.as_deref() };
        if place.is_some_and(|namespace| !self.takes_namespace(namespace)) {
            Some(ExclusionRule::Namespace)
        } else if meta.being_deleted {
            Some(ExclusionRule::BeingDeleted)
        } else if EXCLUDE_LABELS.iter().any(|label| meta.label(label) == Some("true")) {
            Some(ExclusionRule::ExcludeLabel)
        } else if !is_namespace && self.labels.as_ref().is_some_and(|labels| !labels.matches(&meta.labels)) {
            Some(ExclusionRule::Selector)
        } else if made_from_service(&resource.name, meta) && !self.names(&resource.name) {
            Some(ExclusionRule::OwnedByService)
        } else {
            None
        }
    }
}

/// Types that a backup holds only when the scope names them.
fn only_when_named(resource: &GroupResource) -> bool {
    resource.resource == "events" && matches!(resource.group.as_str(), "" | "events.k8s.io")
        || resource.is("coordination.k8s.io", "leases")
        || resource.is("", "componentstatuses")
        || resource.group == "stillpoint.dev"
        || resource.group.ends_with(".stillpoint.dev")
}

/// Whether a controller makes the object again from a Service.
///
/// An EndpointSlice says who writes it: by an owner (a Service, or the Endpoints it mirrors) or by its label. The label
/// with a Service's name says nothing: slices that people write carry it too. Endpoints say less: the controller notes
/// the time of what triggered it, and labels them since Kubernetes 1.33. Endpoints with neither are captured, because
/// nothing would bring back those that a person wrote.
fn made_from_service(resource: &GroupResource, meta: &Meta<'_>) -> bool {
    if resource.is("discovery.k8s.io", "endpointslices") {
        let manager = meta.label(SLICE_MANAGER);
        meta.owners.iter().any(|owner| owner.api_version == "v1" && matches!(&*owner.kind, "Service" | "Endpoints"))
            || matches!(manager, Some("endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io"))
    } else {
        resource.is("", "endpoints")
            && (meta.written_by_endpoints_controller || meta.label(ENDPOINTS_MANAGER) == Some("endpoint-controller"))
    }
}

/// How a pattern may spell a type.
fn spellings(resource: &GroupResource) -> [String; 2] {
    [resource.to_string(), resource.resource.clone()]
}

/// What to include and what to exclude.
#[derive(Debug, Clone, Default)]
struct Choice {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl Choice {
    fn compile(include: &[String], exclude: &[String]) -> Result<Self, Error> {
        let compile = |texts: &[String]| texts.iter().map(|text| Pattern::compile(text)).collect::<Result<_, _>>();
        Ok(Self { include: compile(include)?, exclude: compile(exclude)? })
    }

    /// No include at all includes everything.
    fn includes(&self, spellings: &[impl AsRef<str>]) -> bool {
        self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(spellings))
    }

    fn excludes(&self, spellings: &[impl AsRef<str>]) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(spellings))
    }

    /// The texts of the patterns to include of which `matched` says no.
    fn unmatched(&self, matched: impl Fn(&Pattern) -> bool) -> Vec<&str> {
        self.include.iter().filter(|pattern| !matched(pattern)).map(|pattern| pattern.text.as_str()).collect()
    }

    fn names(&self, spellings: &[impl AsRef<str>]) -> bool {
        self.include.iter().any(|pattern| !pattern.has_wildcards() && pattern.matches(spellings))
    }
}

/// A glob that names are matched against.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    matcher: GlobMatcher,
}

impl Pattern {
    /// Compiles a glob.
    ///
    /// # Errors
    /// [`Error::Pattern`] if it is none.
    pub fn compile(text: &str) -> Result<Self, Error> {
        let glob = GlobBuilder::new(text).literal_separator(false).build();
        let glob = glob.map_err(|source| Error::Pattern { pattern: text.to_owned(), source })?;
        Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher() })
    }

    /// Whether it matches one of a name's spellings.
    pub fn matches(&self, spellings: &[impl AsRef<str>]) -> bool {
        spellings.iter().any(|spelling| self.matcher.is_match(spelling.as_ref()))
    }

    fn has_wildcards(&self) -> bool {
        self.text.contains(['*', '?', '[', '{'])
    }
}

#[cfg(test)]
mod tests;
