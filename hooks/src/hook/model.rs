//! A hook as a value.
//!
//! Where it was written down (Velero's annotations, ours, a preset, a spec) is kept beside what it does: results and
//! advice name the place that a person has to edit.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::preset::Preset;

/// How long a hook may take when nothing else is said; Velero's default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// No hook may take longer, whatever is written; Velero's bound.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// What a hold prints on a line of its own when the application is held.
pub const READY_LINE: &str = "ready";

/// What a hold reads on its standard input when it is to let go.
pub const RELEASE_LINE: &str = "release";

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Before the writers stop, to its end.
    Pre,
    /// Started before the writers stop, and held through until they go on.
    Hold,
    /// After the writers go on.
    Post,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pre, Self::Hold, Self::Post];

    /// As annotations spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Hold => "hold",
            Self::Post => "post",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a failure of the hook means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The pod's volumes are not snapshotted, and no further pre hook of the pod is started.
    #[default]
    Fail,
    /// It is reported, and the backup goes on.
    Continue,
}

/// Where a hook is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Velero's annotations.
    Velero,
    /// Our own annotations.
    Stillpoint,
    /// One of our presets, named by an annotation.
    Preset(Preset),
    /// The request for a backup.
    Spec,
}

/// A command to run in a container, and all that is known of how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// What results call it, unique in its pod: `pre`, `post.2`, `hold`.
    pub name: String,
    /// When it runs.
    pub kind: Kind,
    /// Where it is written down.
    pub source: Source,
    /// The container to run in; the pod's first one unless named.
    pub container: Option<String>,
    /// The program and its arguments: no shell unless the first of them is one.
    pub command: Vec<String>,
    /// What its failure means.
    pub on_error: OnError,
    /// How long it may take; a hold: until it says that it is ready, and again from its release to its end.
    pub timeout: Duration,
    /// Its order group: pre hooks and holds of lower groups first, posts of higher groups first.
    pub order: i32,
    /// Its place among the hooks of its pod and group.
    pub number: u16,
}

impl Hook {
    /// A hook with every setting at its default.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: Kind, source: Source, command: Vec<String>) -> Self {
        Self {
            name: name.into(),
            kind,
            source,
            container: None,
            command,
            on_error: OnError::default(),
            timeout: DEFAULT_TIMEOUT,
            order: 0,
            number: 0,
        }
    }
}

/// The command that has a shell of the container run `script`; `arguments` are its `$1` and so on.
#[must_use]
pub fn in_shell(script: &str, arguments: &[&str]) -> Vec<String> {
    let mut command = vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
    if !arguments.is_empty() {
        command.push("sh".to_owned());
        command.extend(arguments.iter().map(|&argument| argument.to_owned()));
    }
    command
}

/// A timeout as Velero bounds it: nothing is the default, and nothing is longer than the longest.
#[must_use]
pub fn bounded_timeout(timeout: Duration) -> Duration {
    if timeout.is_zero() { DEFAULT_TIMEOUT } else { timeout.min(MAX_TIMEOUT) }
}
