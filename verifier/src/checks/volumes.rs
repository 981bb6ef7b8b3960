//! Whether every file of every volume is what was captured.
//!
//! Each volume is restored into a directory and read back. What the backup holds wrongly fails the check; what this
//! machine could not set, as owners where it is not run by root, says nothing about the backup and is not judged.

use stillpoint_api::{Check, CheckKind, VolumeRecord};
use stillpoint_filetree::restore::{Problem, ProblemKind, Report, Verified};

use crate::findings::{Findings, counted};

/// What the restored volumes have shown.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    volumes: u64,
    files: u64,
    bytes: u64,
    /// Files that the capture could not read.
    unread: u64,
    findings: Findings,
    not_judged: Vec<String>,
}

impl Volumes {
    /// The volumes' trees, or one volume, cannot be read.
    pub(crate) fn damaged(&mut self, subject: &str, message: impl std::fmt::Display) {
        self.findings.add(subject, message);
    }

    /// Judges a volume that was restored.
    pub(crate) fn restored(&mut self, name: &str, record: &VolumeRecord, report: &Report) {
        let Verified { files, bytes } = report.verified.unwrap_or_default();
        self.volumes += 1;
        self.files += files;
        self.bytes += bytes;
        self.unread += record.data.held().map_or(0, |held| held.unread);
        let (wrong, of_this_machine): (Vec<_>, Vec<_>) =
            report.problems.named.iter().partition(|problem| is_about_the_backup(problem.kind));
        for Problem { path, kind, message } in wrong {
            self.findings.add(format!("volume {name}: /{}", path.display()), format!("{kind}: {message}"));
        }
        if report.problems.more > 0 {
            let problems = counted(report.problems.more, "problem");
            self.findings.add(format!("volume {name}"), format!("{problems} more, only counted"));
        }
        if let Some(Problem { path, kind, message }) = of_this_machine.first() {
            let files = counted(of_this_machine.len() as u64, "place");
            let first = format!("/{}: {kind}: {message}", path.display());
            self.not_judged.push(format!(
                "owners, permissions, times and attributes in {files} of volume {name}, which this machine did not set \
                 ({first})"
            ));
        }
    }

    /// The check, and what it could not judge.
    pub(crate) fn judge(self) -> (Check, Vec<String>) {
        let Self { volumes, files, bytes, unread, findings, not_judged } = self;
        let read = format!(
            "{} of {bytes} bytes in {} restored and read back",
            counted(files, "file"),
            counted(volumes, "volume")
        );
        let mut summary = match findings.total() {
            0 => format!("{read}, every byte is what was captured"),
            _ => format!("{read} as captured"),
        };
        if unread > 0 {
            summary.push_str(&format!("; {} could not be read when they were captured", counted(unread, "file")));
        }
        (findings.judge(CheckKind::Volumes, summary), not_judged)
    }
}

fn is_about_the_backup(kind: ProblemKind) -> bool {
    match kind {
        ProblemKind::Directory
        | ProblemKind::Content
        | ProblemKind::Verification
        | ProblemKind::Missing
        | ProblemKind::Link => true,
        ProblemKind::Owner | ProblemKind::Mode | ProblemKind::Attribute | ProblemKind::Times => false,
    }
}
