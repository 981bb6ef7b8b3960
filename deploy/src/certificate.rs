//! The certificate that agents show, and the authority that callers know it by.
//!
//! The authority signs this one certificate and its key is dropped at once: there is no key in the cluster that could
//! make another agent. A renewal is therefore a new authority.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, ToSpan, Zoned, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::{
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use sha2::{Digest, Sha256};

use crate::{AGENT, Namespace};

/// How long a certificate is valid. Whoever upgrades once in two years never meets an expired one.
const YEARS: i64 = 3;
/// A certificate that is not valid for so much longer is renewed.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_hours(365 * 24);

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the agents' certificate")]
pub struct CertificateError(#[from] rcgen::Error);

/// A certificate with its key and the authority that signed it, as PEM. Holds a key: never printed for debugging.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The authority's certificate.
    pub authority: String,
    /// The agents' certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Certificate {
    /// The name that agents of an installation are known by, whatever address they are reached at.
    pub fn server_name(namespace: &Namespace) -> String {
        format!("{AGENT}.{namespace}.svc")
    }

    /// Makes a new one.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(namespace: &Namespace) -> Result<Self, CertificateError> {
        let today = Zoned::now().with_time_zone(TimeZone::UTC).date();
        let mut params = named("stillpoint agents' authority", Vec::new(), today)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut params = named("stillpoint agent", vec![Self::server_name(namespace)], today)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?.pem();
        Ok(Self { authority: authority.pem(), certificate, key: key.serialize_pem() })
    }

    /// Whether it can stay: there is a key, and whoever trusts the authority will still accept the certificate under
    /// the name of the installation in a year.
    pub fn is_good(&self, namespace: &Namespace) -> bool {
        let later = jiff::Timestamp::now() + RENEWED_BEFORE;
        self.is_accepted(namespace, later).is_some() && PrivateKeyDer::from_pem_slice(self.key.as_bytes()).is_ok()
    }

    /// Asks as a caller of an agent does.
    fn is_accepted(&self, namespace: &Namespace, at: jiff::Timestamp) -> Option<()> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).ok()?).ok()?;
        let provider = rustls::crypto::ring::default_provider().into();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(std::sync::Arc::new(roots), provider).build().ok()?;
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        let name = ServerName::try_from(Self::server_name(namespace)).ok()?;
        let at = UnixTime::since_unix_epoch(at.duration_since(jiff::Timestamp::UNIX_EPOCH).unsigned_abs());
        verifier.verify_server_cert(&certificate, &[], &name, &[], at).ok().map(drop)
    }

    /// As a Secret holds it.
    pub(crate) fn certificate_base64(&self) -> String {
        STANDARD.encode(&self.certificate)
    }

    /// As a Secret holds it.
    pub(crate) fn key_base64(&self) -> String {
        STANDARD.encode(&self.key)
    }

    /// Tells certificates apart: the first digits of its SHA-256.
    pub(crate) fn fingerprint(&self) -> String {
        hex::encode(&Sha256::digest(self.certificate.as_bytes())[..8])
    }
}

fn named(name: &str, hosts: Vec<String>, today: Date) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let midnight =
        |date: Date| rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs());
    // clocks differ
    params.not_before = midnight(today.saturating_sub(1.day()));
    params.not_after = midnight(today.saturating_add(YEARS.years()));
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace() -> Namespace {
        "stillpoint-system".parse().unwrap()
    }

    #[test]
    fn a_new_certificate_stays_and_is_renewed_in_its_last_year() {
        let certificate = Certificate::new(&namespace()).unwrap();
        assert!(certificate.is_good(&namespace()));
        let in_days = |days: i64| jiff::Timestamp::now() + SignedDuration::from_hours(24 * days);
        assert!(certificate.is_accepted(&namespace(), in_days(0)).is_some());
        assert!(certificate.is_accepted(&namespace(), in_days(3 * 365 - 2)).is_some());
        assert!(certificate.is_accepted(&namespace(), in_days(3 * 366)).is_none());
    }

    #[test]
    fn what_callers_would_not_accept_is_renewed() {
        let (one, other) = (Certificate::new(&namespace()).unwrap(), Certificate::new(&namespace()).unwrap());
        let mixed = Certificate { authority: other.authority, ..one.clone() };
        assert!(!mixed.is_good(&namespace()));
        assert!(!one.is_good(&"elsewhere".parse().unwrap()));
        assert!(!Certificate { key: String::new(), ..one.clone() }.is_good(&namespace()));
        assert!(!Certificate { certificate: "no PEM".to_owned(), ..one }.is_good(&namespace()));
    }
}
