//! Scratch clusters, restore tests, checks and the report.
//!
//! A restore test is the only proof that a backup restores: [`test()`] reads all of a backup, restores it into a scratch
//! cluster and says what it found as a value, the verdict; [`report`] makes a page of it for people.
//!
//! ```text
//! backup ─ signature ─ integrity ─ counts ─ references ─┬─ volumes, into a folder ─ your checks
//! scratch cluster ──────────────────────────────────────┴─ restore ─ accepted ─ collect garbage ─ still there ─ equal
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod built_in;
mod checks;
mod collector;
mod contents;
mod error;
mod expected;
mod findings;
#[cfg(test)]
mod fixtures;
mod held;
mod progress;
mod record;
pub mod report;
mod restore_test;
mod restored;
pub mod scratch;
mod volumes;

pub use checks::user::{BadCheck, UserCheck};
pub use error::Error;
pub use progress::Progress;
pub use restore_test::{TestRequest, test};
pub use volumes::VolumeTests;
