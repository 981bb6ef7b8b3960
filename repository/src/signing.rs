//! Signs roots with ed25519 and judges signatures against pinned keys.
//!
//! A signature covers a domain and a root: the domain keeps a signed manifest from ever passing for signed evidence.
//! Whether a signature is *valid* and whether its key is *trusted* are two questions; [`Signer`] has a word for every
//! answer, so that no caller can mistake one for the other.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ed25519_dalek::{
    Signer as _, VerifyingKey,
    pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, spki::der::pem::LineEnding},
};
use serde::{Deserialize, Serialize};

use crate::Id;

/// What can go wrong with keys and signatures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SigningError {
    /// The text is no PEM of the expected kind.
    #[error("not an ed25519 {kind} key in PEM: {reason}")]
    NotAKey {
        /// `private` or `public`.
        kind: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// The key could not be written as PEM.
    #[error("the key cannot be encoded: {0}")]
    Encode(String),
    /// The signature does not belong to the root, or is none.
    #[error("the signature is not valid for this root")]
    Invalid,
}

/// What a signature speaks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A backup's manifest.
    Manifest,
    /// Evidence of a restore test.
    Evidence,
}

impl Domain {
    fn message(self, root: &Id) -> Vec<u8> {
        let name = match self {
            Self::Manifest => "manifest",
            Self::Evidence => "evidence",
        };
        format!("stillpoint-{name}-v1\n{root}\n").into_bytes()
    }
}

/// A private key. It never shows in debug output and is wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, private part redacted)", self.public())
    }
}

impl SigningKey {
    /// Draws a new key.
    pub fn generate() -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&rand::random()))
    }

    /// Reads a key in PKCS#8 PEM.
    ///
    /// # Errors
    /// [`SigningError::NotAKey`].
    pub fn from_pem(pem: &str) -> Result<Self, SigningError> {
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(pem);
        key.map(Self).map_err(|error| SigningError::NotAKey { kind: "private", reason: error.to_string() })
    }

    /// Writes the key in PKCS#8 PEM: keep it secret.
    ///
    /// # Errors
    /// [`SigningError::Encode`].
    pub fn to_pem(&self) -> Result<String, SigningError> {
        let pem = self.0.to_pkcs8_pem(LineEnding::LF).map_err(|error| SigningError::Encode(error.to_string()))?;
        Ok(pem.as_str().to_owned())
    }

    /// The key to give away.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a root.
    pub fn sign(&self, domain: Domain, root: &Id) -> Signature {
        Signature {
            algorithm: Algorithm::Ed25519,
            public_key: BASE64_STANDARD.encode(self.0.verifying_key().as_bytes()),
            signature: BASE64_STANDARD.encode(self.0.sign(&domain.message(root)).to_bytes()),
        }
    }
}

/// A public key; shown as its fingerprint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a key in SPKI PEM.
    ///
    /// # Errors
    /// [`SigningError::NotAKey`].
    pub fn from_pem(pem: &str) -> Result<Self, SigningError> {
        let key = VerifyingKey::from_public_key_pem(pem);
        key.map(Self).map_err(|error| SigningError::NotAKey { kind: "public", reason: error.to_string() })
    }

    /// Writes the key in SPKI PEM.
    ///
    /// # Errors
    /// [`SigningError::Encode`].
    pub fn to_pem(&self) -> Result<String, SigningError> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|error| SigningError::Encode(error.to_string()))
    }

    /// Short name for people: the first 16 hexadecimal digits of the SHA-256 of the raw key.
    pub fn fingerprint(&self) -> String {
        hex::encode(&Id::of(self.0.as_bytes()).0[..8])
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Algorithms that signatures may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Ed25519,
}

/// A detached signature as it is stored: a claim until [`Signature::verify`] has looked at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signature {
    algorithm: Algorithm,
    public_key: String,
    signature: String,
}

impl Signature {
    /// Checks the signature with the key it carries and returns that key: valid, not yet trusted.
    ///
    /// # Errors
    /// [`SigningError::Invalid`].
    pub fn verify(&self, domain: Domain, root: &Id) -> Result<PublicKey, SigningError> {
        let key: [u8; 32] = decode(&self.public_key)?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| SigningError::Invalid)?;
        let signature = ed25519_dalek::Signature::from_bytes(&decode(&self.signature)?);
        key.verify_strict(&domain.message(root), &signature).map_err(|_| SigningError::Invalid)?;
        Ok(PublicKey(key))
    }
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], SigningError> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| SigningError::Invalid)?;
    bytes.try_into().map_err(|_| SigningError::Invalid)
}

/// Who signed, as far as can be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// A pinned key; its fingerprint.
    Trusted(String),
    /// A valid signature, but no key is pinned to judge it by; the fingerprint of its key.
    Unverified(String),
    /// A valid signature by a key that is not among the pinned ones; its fingerprint.
    Untrusted(String),
    /// There is no signature.
    Unsigned,
    /// There is a signature, and it does not fit.
    Invalid,
}

/// The pinned public keys.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    keys: Vec<PublicKey>,
}

impl Trust {
    /// Trusts these keys and no others; without any, nothing is trusted and everything valid is `Unverified`.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { keys: keys.into_iter().collect() }
    }

    /// Whether no key is pinned.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Says who signed the root.
    pub fn judge(&self, signature: Option<&Signature>, domain: Domain, root: &Id) -> Signer {
        let Some(signature) = signature else { return Signer::Unsigned };
        match signature.verify(domain, root) {
            Err(_) => Signer::Invalid,
            Ok(key) if self.keys.contains(&key) => Signer::Trusted(key.fingerprint()),
            Ok(key) if self.is_empty() => Signer::Unverified(key.fingerprint()),
            Ok(key) => Signer::Untrusted(key.fingerprint()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_pem_and_stay_secret_in_debug_output() {
        let key = SigningKey::generate();
        let pem = key.to_pem().unwrap();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        let read = SigningKey::from_pem(&pem).unwrap();
        let public = PublicKey::from_pem(&key.public().to_pem().unwrap()).unwrap();
        assert_eq!(read.public(), public);
        assert_eq!(public.fingerprint().len(), 16);
        assert_eq!(format!("{key:?}"), format!("SigningKey({public}, private part redacted)"));
        SigningKey::from_pem(&public.to_pem().unwrap()).unwrap_err();
        PublicKey::from_pem("no key").unwrap_err();
    }

    #[test]
    fn a_signature_holds_for_its_root_and_domain_only() {
        let (key, root) = (SigningKey::generate(), Id::of(b"root"));
        let signature = key.sign(Domain::Manifest, &root);
        assert_eq!(signature.verify(Domain::Manifest, &root).unwrap(), key.public());
        signature.verify(Domain::Evidence, &root).unwrap_err();
        signature.verify(Domain::Manifest, &Id::of(b"other")).unwrap_err();
    }

    #[test]
    fn the_signed_text_is_the_documented_one() {
        let expected = format!("stillpoint-manifest-v1\n{}\n", "00".repeat(32));
        assert_eq!(Domain::Manifest.message(&Id([0; 32])), expected.as_bytes());
        assert!(Domain::Evidence.message(&Id([0; 32])).starts_with(b"stillpoint-evidence-v1\n00"));
    }

    #[test]
    fn every_case_of_trust_has_its_own_word() {
        let (ours, other, root) = (SigningKey::generate(), SigningKey::generate(), Id::of(b"root"));
        let signature = ours.sign(Domain::Manifest, &root);
        let judge = |trust: &Trust, signature| trust.judge(signature, Domain::Manifest, &root);
        let pinned = Trust::new([other.public(), ours.public()]);
        let print = ours.public().fingerprint();
        assert_eq!(judge(&pinned, Some(&signature)), Signer::Trusted(print.clone()));
        assert_eq!(judge(&Trust::default(), Some(&signature)), Signer::Unverified(print.clone()));
        assert_eq!(judge(&Trust::new([other.public()]), Some(&signature)), Signer::Untrusted(print));
        assert_eq!(judge(&pinned, None), Signer::Unsigned);
        let forged = Signature { public_key: other.sign(Domain::Manifest, &root).public_key, ..signature.clone() };
        assert_eq!(judge(&pinned, Some(&forged)), Signer::Invalid);
    }

    #[test]
    fn the_stored_form_is_strict() {
        let signature = SigningKey::generate().sign(Domain::Evidence, &Id([1; 32]));
        let json = serde_json::to_value(&signature).unwrap();
        assert_eq!(json["algorithm"], "ed25519");
        let mut fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        fields.sort();
        assert_eq!(fields, ["algorithm", "publicKey", "signature"]);
        let mut more = json.clone();
        more["more"] = 1.into();
        serde_json::from_value::<Signature>(more).unwrap_err();
        let mut other = json.clone();
        other["algorithm"] = "none".into();
        serde_json::from_value::<Signature>(other).unwrap_err();
        for field in ["publicKey", "signature"] {
            let mut short = json.clone();
            short[field] = "AAAA".into();
            let short: Signature = serde_json::from_value(short).unwrap();
            short.verify(Domain::Evidence, &Id([1; 32])).unwrap_err();
        }
    }
}
