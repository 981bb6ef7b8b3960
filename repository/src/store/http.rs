//! The HTTP client of all stores.
//!
//! One of our own in place of the library's, because only at the body can a transfer be paced and seen to move, and
//! because roots, user agent and timeouts are then the same for every provider and for their credentials.

use std::{
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http_body_util::BodyExt;
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    },
};
use reqwest::{Body, Certificate, Client, Request, Response, Url};

use super::{
    connect::{CONNECT_TIMEOUT, chain, innermost},
    pace::{Pace, Paced, Progress},
};

/// Where containers ask for their identity; a machine's own is known by its short time to connect.
const CONTAINER_IDENTITY: [&str; 2] = ["169.254.170.", "[fd00:ec2::23]"];

/// How long a request may stand still before it is sent again.
const STALL: Duration = Duration::from_secs(30);
/// Attempts at a store, and at who knows our identity, while the store has never answered: a wrong address is
/// reported while the user looks on.
const FIRST_TRIES: u32 = 6;

/// Builds clients that keep to the limits of one store.
#[derive(Debug, Clone, Default)]
pub(super) struct Http {
    pub(super) roots: Vec<Certificate>,
    pub(super) upload: Pace,
    pub(super) download: Pace,
    pub(super) health: Health,
}

/// What the clients of one store have met; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<Met>);

#[derive(Debug, Default)]
struct Met {
    no_identity: AtomicBool,
    answered: AtomicBool,
    unanswered: AtomicU32,
}

impl Health {
    /// Whether this machine was asked for its identity in vain.
    pub(super) fn lacks_identity(&self) -> bool {
        self.0.no_identity.load(Ordering::Relaxed)
    }

    fn note_identity(&self, known: bool) {
        self.0.no_identity.store(!known, Ordering::Relaxed);
    }

    fn note_answer(&self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }

    /// Whether the store was asked often enough for one that has never answered.
    fn gives_up(&self) -> bool {
        !self.0.answered.load(Ordering::Relaxed) && self.0.unanswered.fetch_add(1, Ordering::Relaxed) >= FIRST_TRIES
    }
}

impl HttpConnector for Http {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let timeout = connect_timeout(options).unwrap_or(CONNECT_TIMEOUT);
        let client = Client::builder()
            .user_agent(concat!("stillpoint/", env!("CARGO_PKG_VERSION")))
            .tls_certs_merge(self.roots.clone())
            .http1_only()
            .https_only(!allow_http)
            .connect_timeout(timeout)
            .build()
            .map_err(|error| object_store::Error::Generic { store: "http", source: error.into() })?;
        Ok(HttpClient::new(Service { client, asks_identity: timeout < CONNECT_TIMEOUT, http: self.clone() }))
    }
}

/// The library gives a shorter one for the services that tell a machine its identity.
fn connect_timeout(options: &ClientOptions) -> Option<Duration> {
    let text = options.get_config_value(&ClientConfigKey::ConnectTimeout)?;
    text.parse::<jiff::SignedDuration>().ok()?.try_into().ok()
}

#[derive(Debug)]
struct Service {
    client: Client,
    asks_identity: bool,
    http: Http,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let progress: Progress = parts.extensions.get().cloned().unwrap_or_default();
        let url: Url = parts.uri.to_string().parse().map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let asks_identity = self.asks_identity || is_container_identity(&url);
        let mut sent = Request::new(parts.method, url);
        *sent.headers_mut() = parts.headers;
        if body.content_length() > 0 {
            let body = Paced::new(body, self.http.upload.clone(), progress.clone());
            *sent.body_mut() = Some(Body::wrap(body));
        }
        let answer = self.answer(sent, &progress).await;
        let answer = self.note(asks_identity, answer);
        let (parts, body) = http::Response::<Body>::from(answer?).into_parts();
        let body = Paced::new(body.map_err(failure), self.http.download.clone(), progress);
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

impl Service {
    async fn answer(&self, sent: Request, progress: &Progress) -> Result<Response, HttpError> {
        let answer = progress.watch(STALL, self.client.execute(sent)).await;
        answer.map_err(|_elapsed| HttpError::new(HttpErrorKind::Timeout, Stalled))?.map_err(failure)
    }

    /// A server that was there a moment ago is waited for; one that never was is not.
    fn note(&self, asks_identity: bool, answer: Result<Response, HttpError>) -> Result<Response, HttpError> {
        let health = &self.http.health;
        match asks_identity {
            true => health.note_identity(answer.is_ok()),
            false if answer.is_ok() => health.note_answer(),
            false => {}
        }
        answer.map_err(|error| match health.gives_up() {
            true => HttpError::new(HttpErrorKind::Unknown, Hopeless::NeverThere(innermost(&error))),
            false => error,
        })
    }
}

fn is_container_identity(url: &Url) -> bool {
    url.host_str().is_some_and(|host| CONTAINER_IDENTITY.iter().any(|start| host.starts_with(start)))
}

/// A request that was sent and not answered.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", STALL.as_secs())]
struct Stalled;

/// Why it is no use to try again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Hopeless {
    /// Nobody vouches for the server.
    #[error("its certificate is not accepted: {0}; a private CA is named by --ca-file")]
    Untrusted(String),
    /// It has never answered.
    #[error("{0}")]
    NeverThere(String),
}

/// Says what kind of failure it was: the library decides by it whether to try again.
fn failure(error: reqwest::Error) -> HttpError {
    if let Some(refusal) = chain(&error).find_map(certificate_error) {
        return HttpError::new(HttpErrorKind::Unknown, Hopeless::Untrusted(refusal.to_string()));
    }
    let kind = match () {
        () if error.is_timeout() => HttpErrorKind::Timeout,
        () if error.is_connect() => HttpErrorKind::Connect,
        () if error.is_decode() => HttpErrorKind::Decode,
        () => chain(&error).find_map(kind_of_cause).unwrap_or(HttpErrorKind::Unknown),
    };
    // the library names the address itself, unless it holds a secret
    HttpError::new(kind, error.without_url())
}

/// An input or output error does not count what it wraps among its causes.
fn certificate_error<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(error) = cause.downcast_ref::<std::io::Error>() {
        return certificate_error(error.get_ref()?);
    }
    cause.downcast_ref().filter(|error| matches!(error, rustls::Error::InvalidCertificate(_)))
}

fn kind_of_cause(cause: &(dyn StdError + 'static)) -> Option<HttpErrorKind> {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        // a connection may break between its being opened and its use, and then the request is called off
        let unsent =
            error.is_closed() || error.is_canceled() || error.is_incomplete_message() || error.is_body_write_aborted();
        return unsent.then_some(HttpErrorKind::Request);
    }
    match cause.downcast_ref::<std::io::Error>()?.kind() {
        TimedOut => Some(HttpErrorKind::Timeout),
        ConnectionAborted | ConnectionReset | BrokenPipe | UnexpectedEof => Some(HttpErrorKind::Interrupted),
        _ => None,
    }
}
