//! Collects what could not be restored as it was, by name.
//!
//! A restore by somebody who is not root may fail to set the owner of a million files: the first thousands are named,
//! the rest is counted, so that memory stays bounded and nothing is silent.

use std::{fmt, path::PathBuf};

use serde::{Serialize, Serializer};

/// Problems that are named.
const NAMED: usize = 10_000;

/// What is not as it was in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which file, from the target.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// What is concerned.
    pub kind: ProblemKind,
    /// What happened.
    pub message: String,
}

/// What a problem concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ProblemKind {
    /// The list of a directory is damaged: what was in it is not known.
    Directory,
    /// Bytes of a file are damaged in the repository; they read as zeros.
    Content,
    /// It was restored, but reads differently.
    Verification,
    /// It does not exist.
    Missing,
    /// It is a file of its own instead of a hard link.
    Link,
    /// Owner or group.
    Owner,
    /// Permissions.
    Mode,
    /// An extended attribute, an access control list or a capability.
    Attribute,
    /// Times.
    Times,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "damaged directory",
            Self::Content => "damaged content",
            Self::Verification => "differs from the backup",
            Self::Missing => "not restored",
            Self::Link => "not linked",
            Self::Owner => "owner not set",
            Self::Mode => "permissions not set",
            Self::Attribute => "attribute not set",
            Self::Times => "times not set",
        })
    }
}

fn lossy<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// All problems of a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problems {
    /// The first of them.
    pub named: Vec<Problem>,
    /// How many more there were.
    pub more: u64,
}

impl Problems {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.named.len() as u64 + self.more
    }

    pub(super) fn add(&mut self, path: PathBuf, kind: ProblemKind, message: impl fmt::Display) {
        if self.named.len() < NAMED {
            self.named.push(Problem { path, kind, message: message.to_string() });
        } else {
            self.more += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_problems_are_counted_and_the_first_are_named() {
        let mut problems = Problems::default();
        assert!(problems.is_empty());
        for number in 0..NAMED + 5 {
            problems.add(PathBuf::from(number.to_string()), ProblemKind::Owner, "no right");
        }
        assert_eq!((problems.named.len(), problems.more, problems.count()), (NAMED, 5, NAMED as u64 + 5));
        assert_eq!(problems.named[7].path, PathBuf::from("7"));
    }
}
