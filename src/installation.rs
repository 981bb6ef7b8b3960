//! What is installed in a cluster: read, written by server-side apply, removed.
//!
//! Objects stay untyped: the manifests say what they are, and the label says which of them are ours.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PropagationPolicy},
    core::{GroupVersionKind, TypeMeta},
};
use serde::Serialize;
use stillpoint_deploy::{
    AUTHORITY_CONFIG_MAP, CERTIFICATE_SECRET, Certificate, KINDS, Kind, MANAGED_BY, MANAGED_BY_LABEL, Namespace,
};
use stillpoint_objects::discovery::{Discovery, ServedType};

/// Who the server remembers as the owner of what is applied.
const MANAGER: &str = "stillpoint-install";
/// How long pods and namespaces may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(120);
/// Types whose objects come and go by themselves.
const PASSING: [&str; 3] = ["events", "endpoints", "endpointslices"];
/// The default ServiceAccount and the ConfigMap of the cluster's authority.
const IN_EVERY_NAMESPACE: [&str; 2] = ["default", "kube-root-ca.crt"];
/// Marks the Secrets that hold a ServiceAccount's token.
const OF_SERVICE_ACCOUNT: &str = "kubernetes.io/service-account.name";
const GONE_POLL: Duration = Duration::from_millis(250);

/// What an apply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Change {
    Created,
    Changed,
    Unchanged,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        })
    }
}

/// How agents run.
pub(crate) struct Agents {
    pub(crate) image: String,
    pub(crate) host_network: bool,
}

/// The installation of a cluster.
pub(crate) struct Installation {
    client: Client,
}

impl Installation {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Refuses a second installation: both would serve the same nodes, and their rights bear the same names.
    pub(crate) async fn refuse_a_second(&self, namespace: &Namespace) -> anyhow::Result<()> {
        let [agents, ..] = KINDS;
        for other in self.labelled(&agents).await? {
            let taken = other.namespace().unwrap_or_default();
            if taken != namespace.as_str() {
                bail!(
                    "Stillpoint is installed in the namespace {taken}: give --namespace {taken}, or run \
                     stillpoint uninstall first"
                );
            }
        }
        Ok(())
    }

    /// How agents run, where they are installed.
    pub(crate) async fn agents(&self) -> anyhow::Result<Option<Agents>> {
        let [agents, ..] = KINDS;
        let found = self.labelled(&agents).await?.into_iter().next();
        Ok(found.and_then(|found| {
            let spec = &found.data["spec"]["template"]["spec"];
            let image = spec["containers"][0]["image"].as_str()?.to_owned();
            Some(Agents { image, host_network: spec["hostNetwork"] == true })
        }))
    }

    /// Whether the namespace is ours to make: one that was there before is left as it is, and stays when we go.
    pub(crate) async fn makes_namespace(&self, namespace: &Namespace) -> anyhow::Result<bool> {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        let found = namespaces.get_opt(namespace.as_str()).await.context("cannot read the namespace")?;
        Ok(found.is_none_or(|found| is_ours(found.labels())))
    }

    /// The certificate that agents have.
    pub(crate) async fn certificate(&self, namespace: &Namespace) -> anyhow::Result<Option<Certificate>> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace.as_str());
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace.as_str());
        let secret = secrets.get_opt(CERTIFICATE_SECRET).await.context("cannot read the agents' certificate")?;
        let config_map =
            config_maps.get_opt(AUTHORITY_CONFIG_MAP).await.context("cannot read the agents' authority")?;
        let text = |secret: &Secret, key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
        Ok(secret.zip(config_map).and_then(|(secret, config_map)| {
            Some(Certificate {
                authority: config_map.data?.remove("ca.crt")?,
                certificate: text(&secret, "tls.crt")?,
                key: text(&secret, "tls.key")?,
            })
        }))
    }

    /// Makes an object what its manifest says.
    pub(crate) async fn apply(&self, object: &DynamicObject) -> anyhow::Result<Change> {
        let (api, name) = (self.api_of(object)?, object.name_any());
        let what = || format!("cannot apply {}", name_of(object));
        let before = api.get_opt(&name).await.with_context(what)?;
        let parameters = PatchParams::apply(MANAGER).force();
        let after = api.patch(&name, &parameters, &Patch::Apply(object)).await.with_context(what)?;
        Ok(match before.map(content) {
            None => Change::Created,
            Some(before) if before == content(after) => Change::Unchanged,
            Some(_) => Change::Changed,
        })
    }

    /// Everything that is installed, in the order in which it is to be removed.
    pub(crate) async fn objects(&self) -> anyhow::Result<Vec<DynamicObject>> {
        let mut objects = Vec::new();
        for kind in &KINDS {
            objects.extend(self.labelled(kind).await?);
        }
        Ok(objects)
    }

    /// Removes an object, and waits until it and what it owns are gone.
    pub(crate) async fn delete(&self, object: &DynamicObject) -> anyhow::Result<()> {
        let (api, name) = (self.api_of(object)?, object.name_any());
        let what = || format!("cannot delete {}", name_of(object));
        let parameters =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
        if let Err(error) = api.delete(&name, &parameters).await
            && !is_absent(&error)
        {
            return Err(error).with_context(what);
        }
        let deadline = Instant::now() + GONE_WITHIN;
        while api.get_opt(&name).await.with_context(what)?.is_some() {
            if Instant::now() >= deadline {
                bail!("{} is not gone after {} s: look at its finalizers", name_of(object), GONE_WITHIN.as_secs());
            }
            tokio::time::sleep(GONE_POLL).await;
        }
        Ok(())
    }

    /// What a namespace holds that we did not make and that does not come and go by itself.
    pub(crate) async fn others_in(&self, namespace: &str, discovery: &Discovery) -> anyhow::Result<Vec<String>> {
        let mut others = Vec::new();
        for ServedType { resource, verbs } in &discovery.types {
            if !resource.namespaced
                || !verbs.list
                || !verbs.create
                || PASSING.contains(&resource.name.resource.as_str())
            {
                continue;
            }
            let gvk = GroupVersionKind::gvk(&resource.name.group, &resource.version, &resource.kind);
            let of = ApiResource::from_gvk_with_plural(&gvk, &resource.name.resource);
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &of);
            let found = api.list_metadata(&ListParams::default()).await;
            let found = found.with_context(|| format!("cannot list {} in {namespace}", resource.name))?;
            others.extend(found.items.iter().filter(|item| !is_passing(item.labels(), &item.metadata)).map(|item| {
                let name = item.name_any();
                format!("{}/{name}", resource.name)
            }));
        }
        Ok(others)
    }

    async fn labelled(&self, kind: &Kind) -> anyhow::Result<Vec<DynamicObject>> {
        let of = resource(kind);
        let selected = ListParams::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &of);
        let found = api.list(&selected).await.with_context(|| format!("cannot list {}", of.plural))?;
        // a list leaves the types of its items out
        let types = TypeMeta { api_version: of.api_version.clone(), kind: of.kind.clone() };
        Ok(found.items.into_iter().map(|item| DynamicObject { types: Some(types.clone()), ..item }).collect())
    }

    fn api_of(&self, object: &DynamicObject) -> anyhow::Result<Api<DynamicObject>> {
        let types = object.types.as_ref().context("a manifest without a kind")?;
        let of = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        Ok(match object.namespace() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), &namespace, &of),
            None => Api::all_with(self.client.clone(), &of),
        })
    }
}

/// The objects of manifests.
pub(crate) fn parse(manifests: &str) -> anyhow::Result<Vec<DynamicObject>> {
    serde_saphyr::from_multiple(manifests).context("the manifests are no YAML")
}

/// `configmaps/stillpoint-system/stillpoint-agent-ca`, as kubectl takes it.
pub(crate) fn name_of(object: &DynamicObject) -> String {
    let gvk = object.types.as_ref().and_then(|types| GroupVersionKind::try_from(types).ok());
    let plural = gvk.map(|gvk| ApiResource::from_gvk(&gvk).plural).unwrap_or_default();
    let namespace = object.namespace().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    format!("{plural}/{namespace}{}", object.name_any())
}

/// An object without what changes by itself.
fn content(mut object: DynamicObject) -> DynamicObject {
    object.metadata.resource_version = None;
    object.metadata.managed_fields = None;
    if let Some(fields) = object.data.as_object_mut() {
        fields.remove("status");
    }
    object
}

/// Whether it is ours, another object's, or what every namespace has.
fn is_passing(labels: &BTreeMap<String, String>, metadata: &ObjectMeta) -> bool {
    let for_account = metadata.annotations.as_ref().is_some_and(|each| each.contains_key(OF_SERVICE_ACCOUNT));
    let owned = metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    let of_every_namespace = metadata.name.as_deref().is_some_and(|name| IN_EVERY_NAMESPACE.contains(&name));
    is_ours(labels) || owned || for_account || of_every_namespace
}

fn is_ours(labels: &BTreeMap<String, String>) -> bool {
    labels.get(MANAGED_BY_LABEL).is_some_and(|value| value == MANAGED_BY)
}

fn resource(kind: &Kind) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group, kind.version, kind.kind))
}

fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
