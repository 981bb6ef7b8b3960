//! Whether every byte of the backup is there and is what its id says.
//!
//! The readers below check each blob against its id; here their complaints become one finding for each damaged file,
//! and what says nothing about the backup, such as a store that does not answer, stays an error.

use stillpoint_api::{Check, CheckKind};
use stillpoint_catalog::{self as catalog, Damage};
use stillpoint_repository as repository;

use crate::findings::{Findings, counted};

/// What reading the backup has shown.
#[derive(Debug, Default)]
pub(crate) struct Integrity {
    /// Files read to their end.
    pub(crate) files: u64,
    /// Objects in them.
    pub(crate) objects: u64,
    pub(crate) findings: Findings,
}

impl Integrity {
    pub(crate) fn damaged(&mut self, damage: &Damage) {
        let (subject, message) = describe(damage);
        self.findings.add(subject, message);
    }

    pub(crate) fn extend(&mut self, part: Self) {
        self.files += part.files;
        self.objects += part.objects;
        self.findings.extend(part.findings);
    }

    pub(crate) fn judge(self) -> Check {
        let read = format!("{} in {} read", counted(self.objects, "object"), counted(self.files, "file"));
        let summary = match self.findings.total() {
            0 => format!("{read}, every byte is what its id says"),
            damaged => format!("{damaged} damaged; {read} to the end"),
        };
        self.findings.judge(CheckKind::Integrity, summary)
    }
}

/// The damage that an error tells of; the error itself where it says nothing about the backup.
pub(crate) fn damage_of(error: catalog::Error) -> Result<Damage, catalog::Error> {
    match error {
        catalog::Error::Damaged { name, damage } => match *damage {
            Damage::Unreadable { ref source, .. } if !is_damage(source) => Err(damage.of(&name)),
            damage => Ok(damage),
        },
        // what all backups share is damaged: an index, or a snapshot's file
        catalog::Error::Repository(source) if is_damage(&source) => {
            Ok(Damage::Unreadable { path: "the repository".to_owned(), source })
        }
        other => Err(other),
    }
}

/// Whether the repository says that what it has is not what was written.
pub(crate) fn is_damage(error: &repository::Error) -> bool {
    matches!(
        error,
        repository::Error::Damaged { .. }
            | repository::Error::BlobMissing { .. }
            | repository::Error::FileMissing { .. }
            | repository::Error::TooLarge { .. }
            | repository::Error::Invalid { .. }
    )
}

pub(crate) fn describe(damage: &Damage) -> (String, String) {
    match damage {
        Damage::Unreadable { path, source } => (path.clone(), source.to_string()),
        Damage::Missing { path } => (path.clone(), "it is missing".to_owned()),
        Damage::Foreign { path } => (path.clone(), "it is in the backup, but the manifest does not name it".to_owned()),
        Damage::Malformed { path, source } => {
            (path.clone(), format!("it is no document that this version reads: {source}"))
        }
        Damage::BadLine { path, line, message } => (path.clone(), format!("line {line} is no object: {message}")),
        other => ("the backup".to_owned(), other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use stillpoint_api::Judgement;

    use super::*;

    fn damaged() -> repository::Error {
        repository::Error::Damaged { path: "data/ab/abcd".into(), reason: "it is not what its id says".into() }
    }

    #[test]
    fn a_damaged_file_is_named_with_what_is_damaged() {
        let mut integrity = Integrity { files: 3, objects: 12, ..Integrity::default() };
        let path = "resources/configmaps.core/shop.jsonl".to_owned();
        let error = Damage::Unreadable { path: path.clone(), source: damaged() }.of("shop-1");
        integrity.damaged(&damage_of(error).unwrap());
        let check = integrity.judge();
        assert_eq!(check.judgement, Judgement::Failed);
        assert_eq!(check.findings[0].subject, path);
        assert!(check.findings[0].message.contains("data/ab/abcd is damaged"), "{check:?}");
    }

    #[test]
    fn a_damaged_index_is_damage_and_a_store_that_does_not_answer_is_an_error() {
        damage_of(catalog::Error::Repository(damaged())).unwrap();
        let silent = || repository::Error::Unreachable {
            store: "s3://bucket".into(),
            reason: "no route".into(),
            source: "no route".into(),
        };
        damage_of(catalog::Error::Repository(silent())).unwrap_err();
        damage_of(Damage::Unreadable { path: "manifest.json".into(), source: silent() }.of("shop-1")).unwrap_err();
        damage_of(catalog::Error::NotFound { name: "shop-1".into() }).unwrap_err();
    }

    #[test]
    fn a_sound_backup_passes_with_its_figures() {
        let check = Integrity { files: 1, objects: 12, ..Integrity::default() }.judge();
        assert_eq!(check.judgement, Judgement::Passed);
        assert!(check.summary.starts_with("12 objects in 1 file read"), "{check:?}");
    }
}
