//! Which objects a backup holds, as fingerprints.
//!
//! References can point anywhere in a backup, so all of its names must be at hand at once. Sixteen bytes each instead
//! of the names keep that small; the keys of the hashes are drawn anew for every test, so that nobody can choose names
//! that collide.

use std::{
    collections::HashSet,
    hash::{BuildHasher, Hash, RandomState},
};

use stillpoint_api::{GroupResource, ObjectRef};

/// The hashes of one thing under two keys.
pub(crate) type Fingerprint = (u64, u64);

/// Makes fingerprints.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys(RandomState, RandomState);

impl Keys {
    fn of(&self, thing: impl Hash) -> Fingerprint {
        (self.0.hash_one(&thing), self.1.hash_one(&thing))
    }

    /// The fingerprint of an object's name.
    pub(crate) fn name(&self, resource: &GroupResource, namespace: Option<&str>, name: &str) -> Fingerprint {
        self.of(("name", resource, namespace, name))
    }

    /// The fingerprint of an object's uid.
    pub(crate) fn uid(&self, uid: &str) -> Fingerprint {
        self.of(("uid", uid))
    }
}

/// The objects of a backup.
#[derive(Debug, Default)]
pub(crate) struct Held {
    keys: Keys,
    fingerprints: HashSet<Fingerprint>,
}

impl Held {
    pub(crate) fn new(keys: Keys) -> Self {
        Self { keys, fingerprints: HashSet::new() }
    }

    pub(crate) fn extend(&mut self, fingerprints: Vec<Fingerprint>) {
        self.fingerprints.extend(fingerprints);
    }

    /// Whether the backup holds an object of that name.
    pub(crate) fn object(&self, object: &ObjectRef) -> bool {
        let ObjectRef { resource, namespace, name } = object;
        self.fingerprints.contains(&self.keys.name(resource, namespace.as_deref(), name))
    }

    /// Whether the backup holds the object with that uid.
    pub(crate) fn uid(&self, uid: &str) -> bool {
        !uid.is_empty() && self.fingerprints.contains(&self.keys.uid(uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_known_by_all_of_its_name_and_by_its_uid() {
        let keys = Keys::default();
        let mut held = Held::new(keys.clone());
        let maps = GroupResource::core("configmaps");
        held.extend(vec![keys.name(&maps, Some("shop"), "a"), keys.uid("u")]);
        assert!(held.object(&"configmaps/shop/a".parse().unwrap()) && held.uid("u"));
        for other in ["configmaps/shop/b", "configmaps/other/a", "secrets/shop/a", "configmaps/a"] {
            assert!(!held.object(&other.parse().unwrap()), "{other}");
        }
        assert!(!held.uid("") && !held.uid("name"));
    }
}
