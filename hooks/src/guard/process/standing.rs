//! What the guard's own thread knows of one thing that it stops, and says of it.

use std::{io, time::Duration};

use crate::guard::{
    inbox::Inbox,
    plan::Planned,
    protocol::{Held, Kind, Released, Stop, milliseconds},
    target::{Outcome, Worker},
};

/// One target as the guard sees it.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Given up before the journal, so that a closed channel releases it.
    pub(super) worker: Worker,
    pub(super) standing: Option<Duration>,
    pub(super) waiting: bool,
    pub(super) outcome: Option<Outcome>,
}

impl Target {
    pub(super) fn start(number: usize, planned: Planned, inbox: &Inbox) -> io::Result<Self> {
        let Planned { kind, path, subject } = planned;
        let worker = Worker::start(number, subject, inbox.reports())?;
        let name = path.display().to_string();
        Ok(Self { name, kind, worker, standing: None, waiting: false, outcome: None })
    }

    /// A cgroup that did not have to be paused is nobody's concern.
    pub(super) fn counts(&self) -> bool {
        self.kind != Kind::Rescue || self.standing.is_some()
    }

    pub(super) fn report(&self) -> Released {
        let Self { name, kind, outcome, .. } = self;
        let (name, kind) = (name.clone(), *kind);
        let Some(outcome) = outcome else {
            let held = Held::StillFreezing;
            return Released { name, kind, held, stop_ms: 0.0, release_ms: 0.0, window_ms: 0.0 };
        };
        let window = outcome.began.map_or(Duration::ZERO, |began| outcome.ended - began);
        Released {
            name,
            kind,
            held: outcome.held.clone(),
            stop_ms: milliseconds(outcome.stop),
            release_ms: milliseconds(outcome.release),
            window_ms: milliseconds(window),
        }
    }
}

pub(super) fn late_reason(target: &Target, stop: &Stop) -> String {
    match target.kind {
        Kind::Freeze | Kind::Drain if target.standing.is_none() => format!(
            "it was not frozen within {} ms: a writer holds the freeze up; it is thawed the moment its freeze completes",
            stop.max.as_millis()
        ),
        _ => format!("it did not stop within {} ms", stop.max.as_millis()),
    }
}
