//! What the integration tests share.
//!
//! Clusters, backups, a writer that logs what it wrote, and proxies that get in the way; no test asserts less because
//! a helper hides a failure: helpers panic.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod agents;
pub(crate) mod backups;
pub(crate) mod cluster;
pub(crate) mod counter;
pub(crate) mod in_pod;
pub(crate) mod pairs;
pub(crate) mod proxy;
pub(crate) mod second_node;
pub(crate) mod shell;
pub(crate) mod store;
pub(crate) mod volumes;
pub(crate) mod wire;
