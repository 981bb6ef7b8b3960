//! Certificates, keys and kubeconfig of one control plane, made anew for each.
//!
//! etcd has an authority of its own: whoever may speak to the API server must not read its store
//! behind its back.

use std::{fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::{super::Error, directory::Directory};

const LOOPBACK: &str = "127.0.0.1";

/// The group that every authorisation mode lets do everything.
const MASTERS: &str = "system:masters";

/// The files that servers are told of on their command lines. Holds keys: never printed.
pub(super) struct Pki {
    /// Authority of the API server's clients and of its own certificate.
    pub(super) authority: PathBuf,
    /// The API server's own certificate.
    pub(super) apiserver: Pair,
    /// Authority of etcd and of its only client.
    pub(super) etcd_authority: PathBuf,
    /// etcd's own certificate.
    pub(super) etcd: Pair,
    /// The API server's certificate towards etcd.
    pub(super) etcd_client: Pair,
    /// What service account tokens are signed with.
    pub(super) service_accounts: PathBuf,
    /// What service account tokens are checked with.
    pub(super) service_accounts_public: PathBuf,
    /// The administrator's certificate and key, and the authority to trust, as PEM.
    admin: Admin,
}

/// A certificate's file and its key's.
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

struct Admin {
    authority: String,
    certificate: String,
    key: String,
}

impl Pki {
    /// Makes all of it in `directory`.
    pub(super) fn create(directory: &Directory) -> Result<Self, Error> {
        let authority = new_authority("stillpoint scratch cluster")?;
        let etcd_authority = new_authority("stillpoint scratch etcd")?;
        let etcd = Issued::new(&etcd_authority, server("etcd")?)?;
        let etcd_client = Issued::new(&etcd_authority, client("kube-apiserver", None)?)?;
        let apiserver = Issued::new(&authority, server("kube-apiserver")?)?;
        let admin = Issued::new(&authority, client("stillpoint", Some(MASTERS))?)?;
        let accounts = KeyPair::generate()?;
        Ok(Self {
            authority: write(directory, "ca.crt", &authority.pem())?,
            apiserver: apiserver.write(directory, "apiserver")?,
            etcd_authority: write(directory, "etcd-ca.crt", &etcd_authority.pem())?,
            etcd: etcd.write(directory, "etcd")?,
            etcd_client: etcd_client.write(directory, "etcd-client")?,
            service_accounts: write(directory, "sa.key", &accounts.serialize_pem())?,
            service_accounts_public: write(directory, "sa.pub", &accounts.public_key_pem())?,
            admin: Admin { authority: authority.pem(), certificate: admin.certificate, key: admin.key },
        })
    }

    /// The administrator's kubeconfig for the API server on `port`, credentials included.
    pub(super) fn kubeconfig(&self, port: u16) -> String {
        let Admin { authority, certificate, key } = &self.admin;
        format!(
            "apiVersion: v1
kind: Config
current-context: stillpoint-scratch
contexts:
- name: stillpoint-scratch
  context: {{cluster: stillpoint-scratch, user: stillpoint-scratch}}
clusters:
- name: stillpoint-scratch
  cluster:
    server: https://{LOOPBACK}:{port}
    certificate-authority-data: {}
users:
- name: stillpoint-scratch
  user:
    client-certificate-data: {}
    client-key-data: {}
",
            STANDARD.encode(authority),
            STANDARD.encode(certificate),
            STANDARD.encode(key),
        )
    }
}

/// A certificate and its key, as PEM.
struct Issued {
    certificate: String,
    key: String,
}

impl Issued {
    fn new(authority: &Authority, params: CertificateParams) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.signed_by(&key, authority)?.pem(), key: key.serialize_pem() })
    }

    fn write(&self, directory: &Directory, name: &str) -> Result<Pair, Error> {
        Ok(Pair {
            certificate: write(directory, &format!("{name}.crt"), &self.certificate)?,
            key: write(directory, &format!("{name}.key"), &self.key)?,
        })
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn new_authority(name: &str) -> Result<Authority, Error> {
    let mut params = named(name, None, Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A server's certificate. etcd dials itself with its own, hence a client's usage too.
fn server(name: &str) -> Result<CertificateParams, Error> {
    let mut params = named(name, None, vec![LOOPBACK.to_owned(), "localhost".to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn client(name: &str, group: Option<&str>) -> Result<CertificateParams, Error> {
    let mut params = named(name, group, Vec::new())?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn named(name: &str, group: Option<&str>, hosts: Vec<String>) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn write(directory: &Directory, name: &str, content: &str) -> Result<PathBuf, Error> {
    let path = directory.file(name);
    fs::write(&path, content).map_err(Error::file("write", &path))?;
    Ok(path)
}
