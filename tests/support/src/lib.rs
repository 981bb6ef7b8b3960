//! What the tests of several crates share.
//!
//! A crate of its own, because a file of tests can be used by one package only; nothing but tests depends on it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bucket;
pub mod disk;
pub mod faulty;
pub mod fuzz;
pub mod gcs;
pub mod loop_mount;
pub mod require;
pub mod store;
