//! How far a restore test is.
//!
//! One value at a time, for whoever draws it: the test never knows who looks.

use std::fmt;

use stillpoint_filetree::restore as filetree;
use stillpoint_restore as restore;

/// How far a restore test is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Progress {
    /// The manifest is being read and its signature judged.
    #[default]
    Opening,
    /// The backup is being read.
    Reading {
        /// Objects read so far.
        objects: u64,
    },
    /// What captured objects refer to is being looked up.
    Referring {
        /// Objects looked at so far.
        objects: u64,
    },
    /// A volume is being restored into a directory and read back.
    Volumes(filetree::Progress),
    /// The user's checks are running.
    Checking,
    /// The scratch cluster is being started.
    Starting,
    /// The backup is being restored.
    Restoring(restore::Progress),
    /// The scratch cluster is given time to collect garbage.
    Collecting,
    /// What was restored is being compared with what was captured.
    Comparing {
        /// Objects compared so far.
        objects: u64,
    },
}

impl Progress {
    /// Counts one more object where several files are read at once.
    pub(crate) fn read_one(&mut self) {
        if let Self::Reading { objects } | Self::Comparing { objects } = self {
            *objects += 1;
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => f.write_str("opening the backup"),
            Self::Reading { objects } => write!(f, "reading the backup: {objects} objects"),
            Self::Referring { objects } => write!(f, "looking up references: {objects} objects"),
            Self::Volumes(filetree::Progress { bytes, total_bytes, verifying: false, .. }) => {
                write!(f, "restoring a volume: {bytes} of {total_bytes} bytes")
            }
            Self::Volumes(filetree::Progress { bytes, total_bytes, .. }) => {
                write!(f, "reading a volume back: {bytes} of {total_bytes} bytes")
            }
            Self::Checking => f.write_str("running your checks"),
            Self::Starting => f.write_str("starting the scratch cluster"),
            Self::Restoring(restore::Progress { done, total, .. }) => write!(f, "restoring: {done} of {total} objects"),
            Self::Collecting => f.write_str("waiting for garbage collection"),
            Self::Comparing { objects } => write!(f, "comparing: {objects} objects"),
        }
    }
}
