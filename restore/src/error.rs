//! Why a restore stopped.
//!
//! An object that the target refuses does not stop a restore, it is named in the report; only what makes going on
//! pointless or unsafe is an error.

use stillpoint_api::{ObjectRef, SignerState};

/// A restore could not be planned or carried on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The backup cannot be read, or is damaged. Nothing was written.
    #[error(transparent)]
    Backup(#[from] stillpoint_catalog::Error),
    /// The target failed.
    #[error(transparent)]
    Target(#[from] stillpoint_objects::Error),
    /// The backup's signature does not make it believable. Nothing was written.
    #[error("the backup {name:?} is not restored: {signer}; trust its signer with --trusted-key, if you do")]
    NotTrusted {
        /// The backup's name.
        name: String,
        /// Who signed it.
        signer: SignerState,
    },
    /// A line of the backup is no object of its type.
    #[error("{object} in the backup is no valid object")]
    BadObject {
        /// Which object.
        object: ObjectRef,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A claim did not get its data; nothing that runs was created.
    #[error(
        "{claim} was not filled: {reason}; nothing that runs was created; run the restore again: it goes on where it \
         stopped (--no-volumes restores without data)"
    )]
    NotFilled {
        /// The claim.
        claim: ObjectRef,
        /// Why, in the cluster's words where it said something.
        reason: Box<str>,
    },
    /// A claim that has its data cannot be changed.
    #[error("{claim} has its data, but cannot be changed: {reason}; grant patch on claims, then run the restore again")]
    ClaimNotChanged {
        /// The claim.
        claim: ObjectRef,
        /// Why.
        reason: Box<str>,
    },
    /// It was asked to end.
    #[error("the restore was interrupted: run it again, what exists is kept and volumes go on where they stopped")]
    Cancelled,
    /// Definitions that were created are not served in time.
    #[error(
        "the target does not serve {resource} after {seconds} s, although its definition was created: \
         look at the definition's conditions, then run the restore again (what exists is kept)"
    )]
    NotServed {
        /// The type.
        resource: String,
        /// How long was waited.
        seconds: u64,
    },
}
