//! The types that are served at this moment: the built-in ones and those of established CRDs.
//!
//! Readers take an immutable snapshot; whoever writes a CRD afterwards refreshes its entry from the store, so the
//! registry never knows more than the store does.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    crd,
    store::Store,
    types::{CRD_TABLE, ResourceType, built_in},
};

/// An immutable view of the served types.
#[derive(Clone, Debug, Default)]
pub(crate) struct Types {
    built_in: Vec<Arc<ResourceType>>,
    /// By CRD name; a type per served version.
    custom: BTreeMap<String, Vec<Arc<ResourceType>>>,
}

impl Types {
    /// The type at `/apis/GROUP/VERSION/PLURAL`.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<ResourceType>> {
        self.all().find(|t| t.plural == plural && t.group == group && t.version == version).cloned()
    }

    /// Every served type, the built-in groups first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ResourceType>> {
        self.built_in.iter().chain(self.custom.values().flatten())
    }

    /// The types that the CRD `name` gave, by any version.
    pub(crate) fn of_crd(&self, name: &str) -> &[Arc<ResourceType>] {
        self.custom.get(name).map_or(&[], Vec::as_slice)
    }
}

/// The registry.
#[derive(Debug)]
pub(crate) struct Registry {
    types: RwLock<Arc<Types>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        let built_in = built_in().map(Arc::new).collect();
        Self { types: RwLock::new(Arc::new(Types { built_in, custom: BTreeMap::new() })) }
    }

    /// The types served now.
    pub(crate) fn types(&self) -> Arc<Types> {
        Arc::clone(&self.types.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the CRD `name` from the store and serves what it says.
    pub(crate) fn refresh(&self, store: &Store, name: &str) {
        let mut types = self.types.write().unwrap_or_else(PoisonError::into_inner);
        let served = store.get(CRD_TABLE, name).map(|found| crd::served_types(&found)).unwrap_or_default();
        let mut next = Types::clone(&types);
        next.custom.remove(name);
        if !served.is_empty() {
            next.custom.insert(name.to_owned(), served.into_iter().map(Arc::new).collect());
        }
        *types = Arc::new(next);
    }
}
