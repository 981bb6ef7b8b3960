//! How a server is set up.
//!
//! Defaults suit a scratch cluster on a laptop; the bounds are what keeps its memory finite.

use std::{net::SocketAddr, time::Duration};

/// Settings of a [`Server`](crate::Server).
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen on; port 0 takes a free one. Loopback by default.
    pub bind: SocketAddr,
    /// The Kubernetes version that `/version` names, such as `v1.34.0`.
    pub kubernetes_version: String,
    /// Revisions of history that are kept before the oldest are compacted.
    pub history_revisions: u64,
    /// Bytes of superseded objects that are kept before the oldest are compacted.
    pub history_bytes: usize,
    /// Bytes of present objects beyond which writes are refused, as etcd does at its quota.
    pub live_bytes: usize,
    /// How often an idle watch is sent a bookmark.
    pub bookmark_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            kubernetes_version: "v1.34.0".to_owned(),
            history_revisions: 100_000,
            history_bytes: 256 << 20,
            live_bytes: 2 << 30,
            bookmark_interval: Duration::from_secs(10),
        }
    }
}
