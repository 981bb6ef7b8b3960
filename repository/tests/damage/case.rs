//! One damage: what is done, and what must be said of it.

use stillpoint_repository::{FindingKind, ReadData};

use crate::fixture::Fixture;

/// What restic's check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restic {
    /// It finds it too.
    Agrees,
    /// It is content.
    Silent,
    /// It would take most of a minute: it repeats what is missing, and expands whatever is there.
    NotAsked,
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Does the damage and returns the path that the finding must name.
    pub(crate) damage: fn(&Fixture) -> String,
    pub(crate) read_data: ReadData,
    pub(crate) kind: FindingKind,
    /// Snapshots that the finding must name.
    pub(crate) reaches: u64,
    pub(crate) restic: Restic,
}
