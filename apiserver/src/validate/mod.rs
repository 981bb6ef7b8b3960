//! What an object must look like to be stored: names and metadata for every type, a few rules per kind.
//!
//! Checks only collect causes, so that one answer names every fault; what is not judged at all is listed in
//! [`crate::not_judged`].

mod kinds;
mod metadata;
mod names;

pub(crate) use kinds::{check_kind, check_kind_update};
pub(crate) use metadata::{check_metadata, check_shape};
pub(crate) use names::{MAX_GENERATED_BASE, is_label, is_subdomain};
use serde_json::Value;

/// The text at `pointer`; empty if absent or no text.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at `pointer`; empty if absent or no list.
pub(crate) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
