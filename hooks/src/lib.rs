//! Brings an application to rest and back: hooks, freeze and pause that never leave a mark.
//!
//! It knows nothing of repositories or of what is copied meanwhile: whoever stops writers hands in the work to do while
//! they stand still.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod enter;
pub mod guard;
pub mod hook;
pub mod host;
mod journal;
mod members;
pub mod mounts;
mod pause;
pub mod pods;
mod refusal;
pub mod release;
pub mod session;
pub mod strangers;
pub mod turn;

pub use journal::file as journal_file;
pub use journal::{DEFAULT_FOLDER as DEFAULT_JOURNAL, Error as JournalError};
