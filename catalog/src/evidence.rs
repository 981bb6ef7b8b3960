//! Evidence: the signed verdicts of restore tests, kept beside the backups.
//!
//! Outside restic's folders, encrypted like the rest, named by the root they speak of: a backup is proven by what a
//! verifier signed about exactly these bytes, not by a flag that somebody could set.

use std::fmt;

use stillpoint_api::{Digest, Evidence, SignerState, TestResult, Verdict};
use stillpoint_repository::{
    self as repository, Id, Repository,
    signing::{Domain, Signature, SigningKey, Trust},
};

use crate::{Error, backup::signer_state};

/// What restore tests have said about a backup so far; the newest one counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// No restore test has ended.
    Untested,
    /// The newest restore test passed.
    Proven {
        /// The verdict.
        verdict: Box<Verdict>,
        /// Who signed it.
        signer: SignerState,
    },
    /// The newest restore test failed.
    Failed {
        /// The verdict.
        verdict: Box<Verdict>,
        /// Who signed it.
        signer: SignerState,
    },
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, signer) = match self {
            Self::Untested => return f.write_str("Untested"),
            Self::Proven { signer, .. } => ("Proven", signer),
            Self::Failed { signer, .. } => ("Failed", signer),
        };
        match signer {
            SignerState::Trusted(_) => f.write_str(word),
            other => write!(f, "{word} ({other})"),
        }
    }
}

/// Keeps a verdict about the backup with that root, signed where there is a key.
///
/// # Errors
/// The repository fails.
pub async fn put_evidence(
    repository: &Repository,
    root: Digest,
    verdict: &Verdict,
    key: Option<&SigningKey>,
) -> Result<(), Error> {
    let encode = |source| Error::Encode { what: "the evidence", source };
    let text = serde_json::to_string(verdict).map_err(encode)?;
    let signature = key.map(|key| key.sign(Domain::Evidence, &Id::of(text.as_bytes())));
    let signature = signature.map(serde_json::to_value).transpose().map_err(encode)?;
    let document = serde_json::to_vec(&Evidence { verdict: text, signature }).map_err(encode)?;
    let path = format!("evidence/{root}/{:020}", verdict.finished.as_microsecond());
    Ok(repository.put_sidecar(&path, &document).await?)
}

/// Every verdict about the backup with that root, oldest first, with who signed it. Evidence that is unreadable,
/// speaks of another root or carries a signature that does not fit proves nothing and is left out.
///
/// # Errors
/// The repository fails.
pub async fn evidence(
    repository: &Repository,
    root: Digest,
    trust: &Trust,
) -> Result<Vec<(Verdict, SignerState)>, Error> {
    let mut verdicts = Vec::new();
    for path in repository.list_sidecars(&format!("evidence/{root}/")).await? {
        let document = match repository.get_sidecar(&path).await {
            Err(repository::Error::Damaged { .. } | repository::Error::FileMissing { .. }) => continue,
            read => read?,
        };
        verdicts.extend(parse(&document, trust).filter(|(verdict, _)| verdict.root == Some(root)));
    }
    // by what is signed: a file's name is not
    verdicts.sort_by_key(|(verdict, _)| verdict.finished);
    Ok(verdicts)
}

/// What the newest believable verdict says.
///
/// # Errors
/// The repository fails.
pub async fn standing(repository: &Repository, root: Digest, trust: &Trust) -> Result<Standing, Error> {
    let newest = evidence(repository, root, trust).await?.pop();
    Ok(newest.map_or(Standing::Untested, |(verdict, signer)| match verdict.result {
        TestResult::Proven => Standing::Proven { verdict: Box::new(verdict), signer },
        TestResult::Failed => Standing::Failed { verdict: Box::new(verdict), signer },
    }))
}

/// A verdict and who signed it, if it is to be believed.
pub(crate) fn parse(document: &[u8], trust: &Trust) -> Option<(Verdict, SignerState)> {
    let evidence: Evidence = serde_json::from_slice(document).ok()?;
    let signature: Option<Signature> = evidence.signature.map(serde_json::from_value).transpose().ok()?;
    let signer = trust.judge(signature.as_ref(), Domain::Evidence, &Id::of(evidence.verdict.as_bytes()));
    let believable = |signer: &SignerState| !matches!(signer, SignerState::Invalid | SignerState::Untrusted(_));
    let signer = Some(signer_state(signer)).filter(believable)?;
    Some((serde_json::from_str(&evidence.verdict).ok()?, signer))
}
