//! Asks the cluster which claims are in scope and who uses them, shortly before the cut.
//!
//! What changes between this look and the instant is told by the capture at R: a claim that is new by then has no data,
//! by name.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde::de::DeserializeOwned;
use stillpoint_api::{GroupResource, ResourceType, Scope};
use stillpoint_objects::{
    filter::Selection,
    list::{self, Revision},
    retry::Retry,
};

use super::claims::Seen;
use crate::{Error, plan::Reach};

/// What is asked, and of whom.
pub(crate) struct Look<'a> {
    pub(crate) client: &'a kube::Client,
    pub(crate) retry: &'a Retry,
    pub(crate) selection: &'a Selection,
    pub(crate) scope: &'a Scope,
    /// Whether something is decided by what a volume is.
    pub(crate) needs_volumes: bool,
}

impl Look<'_> {
    /// Looks at claims, volumes and pods at one revision.
    pub(crate) async fn take(&self) -> Result<Seen, Error> {
        let revision = list::read_revision(self.client, self.retry).await?;
        let reach = if self.scope.spans_all_namespaces() {
            Reach::Cluster
        } else {
            let mut names = list::namespace_names(self.client, self.retry).await?;
            names.retain(|name| self.selection.takes_namespace(name));
            Reach::of(self.scope, names)
        };
        let namespaces: Vec<Option<&str>> = match &reach {
            Reach::Cluster => vec![None],
            Reach::Namespaces(names) => names.iter().map(|name| Some(name.as_str())).collect(),
        };
        let mut seen = Seen::default();
        for namespace in namespaces {
            let claims = core("persistentvolumeclaims", "PersistentVolumeClaim", true);
            seen.claims.extend(self.list::<PersistentVolumeClaim>(&claims, namespace, revision, true).await?);
            let pods = core("pods", "Pod", true);
            seen.pods.extend(self.list::<Pod>(&pods, namespace, revision, false).await?);
        }
        if !seen.claims.is_empty() {
            let volumes = core("persistentvolumes", "PersistentVolume", false);
            seen.volumes = match self.list::<PersistentVolume>(&volumes, None, revision, false).await {
                Err(error) if self.needs_volumes => return Err(error),
                // they only tell where a volume without a pod can be used
                listed => listed.unwrap_or_default(),
            };
        }
        Ok(seen)
    }

    async fn list<T: DeserializeOwned>(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        revision: Revision,
        selected: bool,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        let mut pages = list::list_at(self.client, resource, namespace, revision, self.retry);
        while let Some(page) = pages.next().await? {
            for item in page.items() {
                let item = item?;
                let taken = match selected {
                    true => self.selection.object_rule(resource, &item.meta).is_none(),
                    false => {
                        item.meta.namespace.as_deref().is_none_or(|namespace| self.selection.takes_namespace(namespace))
                    }
                };
                if taken {
                    // one that is not understood is not in the cut, and named by the capture
                    found.extend(serde_json::from_str(item.raw).ok());
                }
            }
        }
        Ok(found)
    }
}

fn core(plural: &str, kind: &str, namespaced: bool) -> ResourceType {
    ResourceType { name: GroupResource::core(plural), version: "v1".into(), kind: kind.into(), namespaced }
}
