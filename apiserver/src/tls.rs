//! The server's certificate: made at the start, known only to the kubeconfig, gone with the process.
//!
//! TLS on loopback is not for secrecy alone: kubectl sends a bearer token over nothing else.

use std::{net::IpAddr, sync::Arc};

use rcgen::CertifiedKey;
use rustls::{ServerConfig, crypto::ring::default_provider, pki_types::PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key or certificate was not generated.
    #[error("a certificate could not be generated")]
    Generate(#[from] rcgen::Error),
    /// The TLS library does not accept what was generated.
    #[error("the generated certificate is not usable")]
    Use(#[from] rustls::Error),
}

/// A certificate that clients are told to trust, and what serves with it.
pub(crate) struct Identity {
    /// The certificate in PEM.
    pub(crate) certificate: String,
    pub(crate) acceptor: TlsAcceptor,
}

/// Makes a self-signed identity for a server at `address`.
pub(crate) fn identity(address: IpAddr) -> Result<Identity, TlsError> {
    let names = [address.to_string(), "127.0.0.1".to_owned(), "localhost".to_owned()];
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    // The provider is named here, so that the program's choice of a default one does not matter.
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity { certificate: cert.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) })
}
