//! Filesystems and cgroups that are stopped for real, by a guard that is a process of its own.
//!
//! One binary, so that one test group holds them apart: each takes the times of its own stops only.

#![allow(clippy::unwrap_used)]

mod caller;
mod common;
mod deaths;
mod freeze;
mod in_flight;
mod pause;
mod pods;
mod self_test;
mod session;
mod strangers;
