//! The restore plan, a value, and its application.
//!
//! A plan is computed first and can be read, printed and asked about; applying it is a second call that follows the
//! plan and nothing else. Reading the whole backup to make the plan also checks every byte of it against its id, so
//! nothing is written to a cluster before all of the backup is known to be sound.
//!
//! ```text
//! backup ─ read, check, sanitise ─ rank by kind and owners ─ Plan ─┬─ dry run: the server is asked
//! target ─ discovery ──────────────────────────────────────────────┘ └─ apply: stage by stage, parallel within;
//!                                                                       claims get their data before what runs
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod apply;
mod error;
mod feed;
pub mod fill;
mod owners;
mod plan;
mod rank;
mod target;
pub mod volumes;

pub use apply::{Applied, Foreseen, Foresight, Kept, Progress, apply, dry_run};
pub use error::Error;
pub use plan::{LeftOut, Plan, PlannedVolume, Refused, RestoreRequest, Stage, Step, Warning, plan};
