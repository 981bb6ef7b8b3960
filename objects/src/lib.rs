//! All Kubernetes knowledge: discovery, exact lists, references, order, sanitising, normalising, diff.
//!
//! What asks an API server (`discovery`, `list`, `write`, `helper`) stands apart from what judges objects that are at
//! hand (`filter`, `references`, `order`, `sanitise`, `normalise`, `diff`): the second half is plain functions over JSON,
//! tested without a cluster. Objects stay JSON throughout, because a typed model would drop the fields it does not know;
//! only the pods that we make ourselves are typed.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod diff;
pub mod discovery;
mod error;
pub mod filter;
pub mod helper;
pub mod list;
pub mod normalise;
pub mod order;
pub mod references;
mod request;
pub mod retry;
pub mod sanitise;
mod selector;
mod value;
pub mod write;

pub use error::Error;
