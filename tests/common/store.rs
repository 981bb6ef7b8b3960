//! A server that is asked who somebody is, and a store that notes who came.
//!
//! It gives every caller that asks rightly a name of its own, by the protocols of the clouds, and holds no files: what
//! a client does with its credentials shows in the request that reaches the store.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

/// A request that reached the store itself.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
}

impl Visit {
    /// A header, empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

type Visits = Arc<Mutex<Vec<Visit>>>;

/// The server; dropping it ends it.
pub(crate) struct Cloud {
    pub(crate) endpoint: String,
    /// The same behind TLS.
    pub(crate) secure: String,
    /// The certificate to trust for it, in PEM.
    pub(crate) certificate: String,
    visits: Visits,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        let visits = Visits::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(visits.clone());
        let serve = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let (acceptor, certificate) = tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let secure = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let unwrap = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut inside = acceptor.accept(stream).await?;
                    tokio::io::copy_bidirectional(&mut inside, &mut TcpStream::connect(plain).await?).await
                });
            }
        });
        let endpoint = format!("http://{plain}");
        Self { endpoint, secure, certificate, visits, tasks: [serve, unwrap] }
    }

    /// The first request that reached the store.
    pub(crate) fn visit(&self) -> Visit {
        self.visits.lock().unwrap().first().expect("somebody comes").clone()
    }
}

fn tls() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

async fn answer(State(visits): State<Visits>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let says = |name: &str, wanted: &str| headers.get(name).is_some_and(|value| value == wanted);
    let body = String::from_utf8_lossy(&body);
    let query = uri.query().unwrap_or_default();
    match (method.as_str(), uri.path()) {
        ("PUT", "/latest/api/token") => "machine-session".into_response(),
        ("GET", "/latest/meta-data/iam/security-credentials/") => "role".into_response(),
        ("GET", "/latest/meta-data/iam/security-credentials/role")
            if says("x-aws-ec2-metadata-token", "machine-session") =>
        {
            aws_keys("MACHINE").into_response()
        }
        ("GET", "/pod-identity") if says("authorization", "pod-token") => aws_keys("POD").into_response(),
        ("POST", "/sts") if query.contains("WebIdentityToken=web-token") => web_identity("WEB").into_response(),
        ("GET", "/msi") if says("metadata", "true") => azure_token("machine").into_response(),
        ("POST", "/tenant/oauth2/v2.0/token") if body.contains("client_assertion=web-token") => {
            azure_token("pod").into_response()
        }
        ("POST", "/tenant/oauth2/v2.0/token") if body.contains("client_secret=secret") => {
            azure_token("principal").into_response()
        }
        ("GET", "/computeMetadata/v1/instance/service-accounts/default/token") if says("metadata-flavor", "Google") => {
            r#"{"access_token":"node","expires_in":3599,"token_type":"Bearer"}"#.into_response()
        }
        _ => {
            visits.lock().unwrap().push(Visit { uri: uri.to_string(), headers });
            let body = "<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>";
            (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
        }
    }
}

fn aws_keys(name: &str) -> String {
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{name}","SecretAccessKey":"s","Token":"{name}-session","Expiration":"2099-01-01T00:00:00Z"}}"#
    )
}

fn web_identity(name: &str) -> String {
    format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>{name}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>{name}-session</SessionToken>\
         <Expiration>2099-01-01T00:00:00Z</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
}

fn azure_token(name: &str) -> String {
    format!(
        r#"{{"access_token":"{name}","expires_in":3599,"expires_on":"4070908800","resource":"r","token_type":"Bearer"}}"#
    )
}
