//! What a restore leaves to be expected in the scratch cluster.
//!
//! Exceptions only: whatever is not named here was created and must be there as it was captured.

use std::collections::HashMap;

use serde_json::Value;
use stillpoint_api::{Manifest, ObjectRef, ResourceType};
use stillpoint_restore::{Applied, Plan};

use crate::held::Held;

/// What became of an object that the restore did not create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exception {
    /// It is never restored, or was refused: it need not be there.
    NotRestored,
    /// It existed and was kept: it need not be as captured.
    Kept,
}

/// The exceptions of one restore.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    exceptions: HashMap<&'a ObjectRef, Exception>,
    kinds: HashMap<(&'a str, &'a str), &'a ResourceType>,
    held: &'a Held,
}

impl<'a> Expected<'a> {
    pub(crate) fn new(manifest: &'a Manifest, held: &'a Held, plan: &'a Plan, applied: &'a Applied) -> Self {
        let left_out = plan.left_out.iter().map(|left_out| &left_out.object);
        Self::of(manifest, held, left_out, applied)
    }

    /// The exceptions where `left_out` are the objects that are never restored.
    pub(crate) fn of(
        manifest: &'a Manifest,
        held: &'a Held,
        left_out: impl Iterator<Item = &'a ObjectRef>,
        applied: &'a Applied,
    ) -> Self {
        let refused = applied.refused.iter().map(|refused| &refused.object);
        let not_restored = left_out.chain(refused).map(|object| (object, Exception::NotRestored));
        let kept = applied.kept.iter().map(|kept| (&kept.object, Exception::Kept));
        let types = manifest.types.iter().map(|record| &record.resource);
        let kinds = types.map(|resource| ((resource.name.group.as_str(), resource.kind.as_str()), resource));
        Self { exceptions: not_restored.chain(kept).collect(), kinds: kinds.collect(), held }
    }

    /// What became of an object, where it was not created.
    pub(crate) fn exception(&self, object: &ObjectRef) -> Option<Exception> {
        self.exceptions.get(object).copied()
    }

    /// Whether a restore has an owner to relink a reference to: one that is in the backup and was restored. `namespace`
    /// is that of the object that names its owner.
    pub(crate) fn restores_owner(&self, namespace: Option<&str>, owner: &Value) -> bool {
        let text = |field: &str| owner[field].as_str().unwrap_or_default();
        if !self.held.uid(text("uid")) {
            return false;
        }
        let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
        let Some(resource) = self.kinds.get(&(group, text("kind"))) else { return true };
        let namespace = namespace.filter(|_| resource.namespaced);
        let owner = ObjectRef::new(resource.name.clone(), namespace, text("name"));
        self.exception(&owner) != Some(Exception::NotRestored)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stillpoint_restore::Refused;

    use super::*;
    use crate::{
        fixtures::{manifest, record},
        held::Keys,
    };

    #[test]
    fn an_owner_counts_as_restored_if_the_backup_holds_it_and_the_cluster_took_it() {
        let manifest = manifest(vec![record("replicasets.apps", "ReplicaSet", 2)]);
        let keys = Keys::default();
        let mut held = Held::new(keys.clone());
        held.extend(vec![keys.uid("u1"), keys.uid("u2")]);
        let refused = "replicasets.apps/shop/refused".parse().unwrap();
        let applied = Applied { refused: vec![Refused { object: refused, reason: "no".into() }], ..Applied::default() };
        let skipped = "replicasets.apps/shop/skipped".parse().unwrap();
        let expected = Expected::of(&manifest, &held, [&skipped].into_iter(), &applied);
        let owner = |name: &str, uid: &str| {
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": uid});
            expected.restores_owner(Some("shop"), &owner)
        };
        assert!(owner("web", "u1"));
        assert!(!owner("web", "gone"));
        assert!(!owner("refused", "u2") && !owner("skipped", "u2"));
    }
}
