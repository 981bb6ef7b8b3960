//! Brings an application to rest and back: hooks, freeze and pause that never leave a mark.
//!
//! It knows nothing of repositories or of what is copied meanwhile: whoever stops writers hands in the work to do while
//! they stand still.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod hook;
