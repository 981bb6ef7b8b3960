//! What a user wants to know of a new volume backup.

use std::{fmt::Write as _, path::Path};

use jiff::Timestamp;
use serde::Serialize;
use stillpoint_agent::volume::Stored;
use stillpoint_api::Level;
use stillpoint_filetree::backup::{Counts, LeftOut, Problem, Report};
use stillpoint_hooks::guard::Release;

use crate::output;

/// Problems that are printed; all of them are in `-o json`.
const SHOWN: usize = 20;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    name: String,
    pub(super) outcome: Outcome,
    snapshot: String,
    parent: Option<String>,
    #[serde(flatten)]
    counts: Counts,
    /// Bytes before compression that were not in the repository.
    bytes_new: u64,
    /// Bytes that the repository grew by.
    bytes_added: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
    problems: Vec<Problem>,
    left_out: Vec<LeftOut>,
}

#[derive(Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    Complete,
    Degraded,
}

/// How an instant was captured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cut {
    /// An instant at which all writers stood still.
    instant: Timestamp,
    attempts: u32,
    /// From the first stop to the last release; 0 where nothing had to be stopped.
    window_ms: f64,
    release: Option<Release>,
    directories: Vec<Taken>,
    post_hooks_failed: Vec<String>,
}

/// How one directory was captured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Taken {
    path: String,
    filesystem: String,
    /// As `--method` spells it.
    method: String,
    reason: String,
    level: Level,
    strangers: Vec<String>,
    passes: u32,
    /// How long the capture took while its writers stood still.
    captured_ms: f64,
    /// Bytes of files that were read meanwhile.
    bytes_read_in_window: u64,
}

impl Taken {
    pub(super) fn of(path: &Path, volume: &Stored) -> Self {
        Self {
            path: path.display().to_string(),
            filesystem: volume.filesystem.clone(),
            method: volume.choice.method.to_string(),
            reason: volume.choice.reason.clone(),
            level: volume.level,
            strangers: volume.strangers.clone(),
            passes: volume.window.passes,
            captured_ms: volume.window.took.as_secs_f64() * 1e3,
            bytes_read_in_window: volume.window.bytes_read,
        }
    }
}

impl Cut {
    pub(super) fn new(
        instant: Timestamp,
        attempts: u32,
        release: Option<Release>,
        directories: Vec<Taken>,
        post_hooks_failed: Vec<String>,
    ) -> Self {
        let window_ms = release.as_ref().map_or(0.0, |release| release.window_ms);
        Self { instant, attempts, window_ms, release, directories, post_hooks_failed }
    }

    /// Whether something is in doubt: a stranger may have written, a post hook did not run to its end.
    fn is_degraded(&self) -> bool {
        !self.post_hooks_failed.is_empty() || self.directories.iter().any(|taken| !taken.strangers.is_empty())
    }

    fn write(&self, text: &mut String) {
        let attempts = if self.attempts > 1 { format!(", attempt {}", self.attempts) } else { String::new() };
        let _ = match self.window_ms {
            0.0 => writeln!(text, "  nothing had to be stopped"),
            ms => writeln!(text, "  window {ms:.1} ms{attempts}"),
        };
        for taken in &self.directories {
            let Taken { path, filesystem: _, method, reason, level, strangers, passes, captured_ms, .. } = taken;
            let read = output::bytes(taken.bytes_read_in_window);
            let passes = if *passes > 0 { format!(", {passes} before it") } else { String::new() };
            let path = output::printable(path);
            let _ = writeln!(
                text,
                "  {path}: level {level}, by {method}; {read} read in the window, {captured_ms:.1} ms{passes}"
            );
            let _ = writeln!(text, "    why {method}: {}", output::printable(reason));
            for stranger in strangers {
                let _ = writeln!(text, "    ! not stopped: {}", output::printable(stranger));
            }
        }
        for failed in &self.post_hooks_failed {
            let _ = writeln!(text, "  ! a post hook failed: {}", output::printable(failed));
        }
    }
}

impl Summary {
    pub(super) fn new(name: String, report: Report, cut: Option<Cut>) -> Self {
        let Report { snapshot, tree: _, parent, counts, stats, problems, left_out, seconds } = report;
        let degraded = !problems.is_empty() || cut.as_ref().is_some_and(Cut::is_degraded);
        let outcome = if degraded { Outcome::Degraded } else { Outcome::Complete };
        let (snapshot, parent) = (snapshot.to_string(), parent.map(|id| id.to_string()));
        let (bytes_new, bytes_added) = (stats.bytes_new, stats.bytes_packed);
        Self { name, outcome, snapshot, parent, counts, bytes_new, bytes_added, seconds, cut, problems, left_out }
    }

    pub(super) fn to_text(&self) -> String {
        let Counts { files_new, files_changed, files_unmodified, directories, others, bytes, bytes_read } = self.counts;
        let outcome = if self.outcome == Outcome::Complete { "Complete" } else { "Degraded" };
        let compared = match (&self.cut, &self.parent) {
            (Some(_), _) => output::counted(files_new + files_changed + files_unmodified, "file"),
            (None, None) => format!("{} new, first of its paths", output::counted(files_new, "file")),
            (None, Some(parent)) => format!(
                "{} new, {files_changed} changed, {files_unmodified} unmodified since {}",
                output::counted(files_new, "file"),
                &parent[..8]
            ),
        };
        let mut text = format!(
            "volume backup {}: {outcome}\n  {compared}; {} directories, {}\n  {} in files, {} read in {:.1} s\n  \
             stored {} ({} new, {} compressed)\n",
            self.name,
            output::count(directories),
            output::counted(others, "other"),
            output::bytes(bytes),
            output::bytes(bytes_read),
            self.seconds,
            &self.snapshot[..8],
            output::bytes(self.bytes_new),
            output::bytes(self.bytes_added),
        );
        if let Some(cut) = &self.cut {
            cut.write(&mut text);
        }
        for mount in &self.left_out {
            let _ = writeln!(
                text,
                "  - {}: another file system, left out (--cross-mounts)",
                output::printable(&mount.path)
            );
        }
        for problem in self.problems.iter().take(SHOWN) {
            let _ = writeln!(text, "  ! {}", output::printable(&problem.to_string()));
        }
        if let Some(more) = self.problems.len().checked_sub(SHOWN + 1) {
            let _ = writeln!(text, "  ! and {} more: -o json lists them", more + 1);
        }
        text
    }
}
