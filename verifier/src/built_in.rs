//! Objects that every cluster makes by itself and that a restore cannot replace.
//!
//! Most of what a cluster makes is never restored, by the rules of sanitising. These are: users put labels on them. But
//! a scratch cluster has its own before anything is restored, and what exists is kept, so they cannot be as captured.
//! The table is all there is to it; whenever it was needed, the verdict says so among what was not judged.

use stillpoint_api::ObjectRef;

/// One object, and who makes it.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn {
    /// The object, as it is written: `namespaces.core/default`.
    pub object: &'static str,
    /// Who makes it.
    pub maker: &'static str,
}

/// All of them.
pub const BUILT_IN: [BuiltIn; 5] = [
    BuiltIn { object: "namespaces.core/default", maker: "the API server" },
    BuiltIn { object: "namespaces.core/kube-node-lease", maker: "the API server" },
    BuiltIn { object: "namespaces.core/kube-public", maker: "the API server" },
    BuiltIn { object: "namespaces.core/kube-system", maker: "the API server" },
    BuiltIn {
        object: "configmaps.core/kube-system/kube-apiserver-legacy-service-account-token-tracking",
        maker: "the API server, which notes there since when it tracks tokens",
    },
];

/// Whether every cluster makes this object by itself.
pub(crate) fn is_built_in(object: &ObjectRef) -> bool {
    let written = object.to_string();
    BUILT_IN.iter().any(|rule| rule.object == written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_written_as_objects_are() {
        for BuiltIn { object, .. } in BUILT_IN {
            let parsed: ObjectRef = object.parse().unwrap();
            assert_eq!(parsed.to_string(), object);
            assert!(is_built_in(&parsed));
        }
    }

    #[test]
    fn no_other_object_counts_as_made_by_the_cluster() {
        for object in ["namespaces/shop", "configmaps/default/kube-system", "namespaces/kube-system-2"] {
            assert!(!is_built_in(&object.parse().unwrap()), "{object}");
        }
    }
}
