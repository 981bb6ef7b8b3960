//! What captures: the API resources of a cluster at one etcd revision.
//!
//! Data flows one way: a [`BackupRequest`] becomes a plan of units (one type in one namespace, or across the
//! cluster), units are captured several at a time, and what came of each is added up to the manifest. Nothing exists
//! in the repository until the manifest is committed.
//!
//! ```text
//! request ─ discovery ─ read R ─ plan ─┬─ unit: count at R, list at R ─┬─ needed cluster-scoped ─ manifest ─ commit
//!                                      └─ unit …                       ┘
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod attempt;
mod backup;
mod cut;
mod error;
mod needed;
mod node;
mod plan;
mod store;
mod taken;
mod unit;
pub mod volume;

pub use access::Access;
pub use backup::{BackupRequest, Progress, Report, create};
pub use cut::{
    AgentError, Agents, HelperPods, HooksRequest, OnStep, Policies, PolicyError, Queue, Queued, Step, UnmountedClaims,
    VolumesRequest, Way,
};
pub use error::Error;
pub use node::{Node, NodeConfig, ServeError, Server, Tls, take_turn};
