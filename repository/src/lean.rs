//! Reads of a directory only what leads on: names, sizes and the ids below.
//!
//! A check and a prune read every directory of the repository; times, owners and attributes are half of its text and
//! none of their business. Unlike [`crate::Tree`] the nodes stay in the order in which they were written, since that
//! order is what a check looks at.

use std::ffi::OsString;

use serde::Deserialize;

use crate::{
    Id,
    tree::{self, NodeKind},
};

/// A directory in its own order.
#[derive(Debug, Deserialize)]
pub(crate) struct LeanTree {
    #[serde(deserialize_with = "absent_is_empty")]
    pub(crate) nodes: Vec<LeanNode>,
}

/// A node's own part of what its directory needs.
#[derive(Debug, Deserialize)]
pub(crate) struct LeanNode {
    #[serde(deserialize_with = "tree::read_name")]
    pub(crate) name: OsString,
    #[serde(rename = "type")]
    pub(crate) kind: NodeKind,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) content: Option<Vec<Id>>,
    #[serde(default)]
    pub(crate) subtree: Option<Id>,
}

impl LeanTree {
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| format!("it is no directory: {error}"))
    }
}

/// Go writes a list that was never filled as null.
fn absent_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<LeanNode>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leads_on_is_read_and_the_order_stays() {
        let id = Id([1; 32]);
        let json = format!(
            r#"{{"nodes":[{{"name":"b","type":"file","mtime":"x","size":3,"content":["{id}"]}},
               {{"name":"a\\n","type":"dir","subtree":"{id}","content":null}}]}}"#
        );
        let tree = LeanTree::from_json(json.as_bytes()).unwrap();
        let [b, a] = &tree.nodes[..] else { panic!("two nodes expected") };
        assert_eq!((b.size, b.content.as_deref(), b.subtree), (3, Some(&[id][..]), None));
        assert_eq!((a.name.to_str(), a.kind, a.subtree), (Some("a\n"), NodeKind::Dir, Some(id)));
        assert!(LeanTree::from_json(br#"{"nodes":null}"#).unwrap().nodes.is_empty());
        assert!(LeanTree::from_json(b"{}").is_err());
    }
}
