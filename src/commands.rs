//! The commands, one file each.
//!
//! Each turns its flags into a request value, lets the crates do the work, and prints what came of it.

pub(crate) mod agent;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod completion;
pub(crate) mod demo;
pub(crate) mod freeze;
pub(crate) mod helper;
pub(crate) mod hooks;
pub(crate) mod install;
pub(crate) mod key;
pub(crate) mod pause;
pub(crate) mod repo;
pub(crate) mod restore;
pub(crate) mod scratch;
pub(crate) mod thaw;
pub(crate) mod uninstall;
pub(crate) mod verify;
pub(crate) mod volume;
