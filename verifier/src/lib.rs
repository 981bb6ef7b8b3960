//! Scratch clusters, restore tests, checks and the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod report;
pub mod scratch;
