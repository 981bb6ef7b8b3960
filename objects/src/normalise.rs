//! Takes out of objects what a faithful restore may change, and nothing else.
//!
//! The rules are one published table, and the table is what runs.

use serde_json::Value;
use stillpoint_api::ResourceType;

/// Applies every rule to an object.
pub fn normalise(resource: &ResourceType, object: Value) -> Value {
    todo!("{resource:?} {object}")
}
