//! Why a helper pod does not do, in the cluster's own words where it said something.
//!
//! What to do about it depends on what the pod was for: whoever asked adds that.

use std::fmt;

/// A helper pod did not come to run, or did not go.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelperError {
    /// It cannot even be described.
    #[error("its pod cannot be described")]
    Manifest(#[from] serde_json::Error),
    /// The API server does not take it.
    #[error("its pod is refused: {0}")]
    Refused(String),
    /// There is a pod of this name that we did not make.
    #[error("there is a pod {0} that is not ours")]
    NotOurs(String),
    /// It ended before it was of use.
    #[error("its pod {pod} ended at once; {circumstances}")]
    Ended {
        /// Its name.
        pod: String,
        /// What is known.
        circumstances: Box<Circumstances>,
    },
    /// It does not run in time.
    #[error("its pod {pod} does not run after {seconds} s; {circumstances}")]
    NotRunning {
        /// Its name.
        pod: String,
        /// How long was waited.
        seconds: u64,
        /// What is known.
        circumstances: Box<Circumstances>,
    },
    /// It is not there any more.
    #[error("its pod {0} was removed by somebody")]
    Gone(String),
    /// Nothing can be learnt of it.
    #[error("its pod {pod} cannot be asked for: {message}")]
    Unknown {
        /// Its name.
        pod: String,
        /// The server's words.
        message: String,
    },
    /// It cannot be changed.
    #[error("its pod {pod} cannot be changed: {message}")]
    NotChanged {
        /// Its name.
        pod: String,
        /// The server's words.
        message: String,
    },
    /// It cannot be removed.
    #[error("its pod {pod} cannot be removed: {message}")]
    NotRemoved {
        /// Its name.
        pod: String,
        /// The server's words.
        message: String,
    },
    /// It does not go.
    #[error("its pod {pod} is not gone after {seconds} s")]
    NotGone {
        /// Its name.
        pod: String,
        /// How long was waited.
        seconds: u64,
    },
}

impl HelperError {
    /// What is known of a pod that does not run.
    pub fn circumstances(&self) -> Option<&Circumstances> {
        match self {
            Self::Ended { circumstances, .. } | Self::NotRunning { circumstances, .. } => Some(circumstances),
            _ => None,
        }
    }
}

/// What the cluster says of a pod and its claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The claim's phase, such as `Pending`.
    pub claim_phase: String,
    /// The claim's storage class.
    pub storage_class: String,
    /// The pod's node, once it has one.
    pub node: Option<String>,
    /// What its container waits for, or how it ended.
    pub container: Option<String>,
    /// The newest events, each with what it is of.
    pub events: Vec<String>,
}

impl fmt::Display for Circumstances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the claim is {}; ", self.claim_phase)?;
        match &self.node {
            Some(node) => write!(f, "its pod's node is {node}")?,
            None => f.write_str("its pod has no node")?,
        }
        self.container.iter().chain(&self.events).try_for_each(|words| write!(f, "; {words}"))
    }
}
