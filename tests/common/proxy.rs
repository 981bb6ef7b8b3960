//! A proxy between a client and a server that gets in the way where it is told to.
//!
//! The server behind it stays the real one: only the chosen answers are refused, cut short, delayed or rewritten.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::Response,
};
use futures::{future::BoxFuture, stream};
use http::{
    header::{ACCEPT, CONTENT_TYPE},
    request::Parts,
};
use http_body_util::BodyExt;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::cluster;

/// What happens to an answer.
#[derive(Clone)]
pub(crate) enum Fault {
    /// The server is not asked; a status with this code, and a wish to wait of so many seconds where it is not 0.
    Refuse { code: u16, retry_after: u32 },
    /// The connection ends in the middle of the body.
    CutShort,
    /// The JSON is changed.
    Rewrite(fn(&mut Value)),
    /// Something happens, given the request's path and query, before the server is asked.
    Before(Arc<dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync>),
}

impl Fault {
    /// Something that happens, given the request's path and query, before the server is asked.
    pub(crate) fn before<F>(happens: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::Before(Arc::new(move |target| Box::pin(happens(target))))
    }
}

/// A fault, where it strikes and how often.
struct Rule {
    /// Asked with the path and query.
    strikes: Box<dyn Fn(&str) -> bool + Send + Sync>,
    left: usize,
    fault: Fault,
}

/// The first page of a list at a revision.
pub(crate) fn first_page(plural: &'static str) -> impl Fn(&str) -> bool {
    // the count asks for one object
    move |target| is_list(target, plural) && target.contains("resourceVersionMatch=Exact") && !is_count(target)
}

/// A later page of a list.
pub(crate) fn later_page(plural: &'static str) -> impl Fn(&str) -> bool {
    move |target| is_list(target, plural) && target.contains("continue=")
}

/// Any request for objects of a type.
pub(crate) fn any_list(plural: &'static str) -> impl Fn(&str) -> bool {
    move |target| is_list(target, plural)
}

fn is_list(target: &str, plural: &str) -> bool {
    target.split_once('?').is_some_and(|(path, _)| path.ends_with(&format!("/{plural}")))
}

fn is_count(target: &str) -> bool {
    target.split(['?', '&']).any(|parameter| parameter == "limit=1")
}

/// A running proxy.
pub(crate) struct Proxy {
    /// A client that goes through it.
    pub(crate) client: Client,
    state: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    server: Client,
    rules: Mutex<Vec<Rule>>,
}

impl Proxy {
    /// Starts a proxy before the server of a client.
    pub(crate) async fn before(server: &Client) -> Self {
        let state = Arc::new(Shared { server: server.clone(), rules: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(pass).with_state(state.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let client = cluster::client(Config::new(url.parse().unwrap()));
        Self { client, state, _task: AbortOnDropHandle::new(task) }
    }

    /// Strikes the next `times` requests with such a path and query.
    pub(crate) fn strike(&self, at: impl Fn(&str) -> bool + Send + Sync + 'static, times: usize, fault: Fault) {
        self.state.rules.lock().unwrap().push(Rule { strikes: Box::new(at), left: times, fault });
    }

    /// How many faults have not struck yet.
    pub(crate) fn left(&self) -> usize {
        self.state.rules.lock().unwrap().iter().map(|rule| rule.left).sum()
    }
}

impl Shared {
    fn fault(&self, target: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let meant = |rule: &&mut Rule| rule.left > 0 && (rule.strikes)(target);
        let rule = rules.iter_mut().find(meant)?;
        rule.left -= 1;
        Some(rule.fault.clone())
    }
}

async fn pass(State(proxy): State<Arc<Shared>>, request: Request) -> Response {
    // reading needs no body
    let (request, _) = request.into_parts();
    let target = request.uri.to_string();
    match proxy.fault(&target) {
        None => answer(&proxy, &request, |body| body).await,
        Some(Fault::Refuse { code, retry_after }) => refusal(code, retry_after),
        Some(Fault::CutShort) => {
            let mut response = answer(&proxy, &request, |body| body.slice(..body.len() / 2)).await;
            let half = std::mem::take(response.body_mut()).into_data_stream();
            let broken = stream::iter([Err(axum::Error::new(std::io::Error::other("cut")))]);
            *response.body_mut() = Body::from_stream(futures::StreamExt::chain(half, broken));
            response
        }
        Some(Fault::Rewrite(change)) => {
            let rewrite = |body: Bytes| {
                let mut value: Value = serde_json::from_slice(&body).unwrap();
                change(&mut value);
                value.to_string().into()
            };
            answer(&proxy, &request, rewrite).await
        }
        Some(Fault::Before(happens)) => {
            happens(target).await;
            answer(&proxy, &request, |body| body).await
        }
    }
}

/// The server's answer, its body changed.
async fn answer(proxy: &Shared, request: &Parts, change: impl FnOnce(Bytes) -> Bytes) -> Response {
    let mut asked = http::Request::builder().method(&request.method).uri(request.uri.to_string());
    if let Some(accept) = request.headers.get(ACCEPT) {
        asked = asked.header(ACCEPT, accept);
    }
    let asked = asked.body(kube::client::Body::empty()).unwrap();
    let (head, body) = proxy.server.send(asked).await.unwrap().into_parts();
    let body = change(body.collect().await.unwrap().to_bytes());
    let mut response = Response::builder().status(head.status);
    if let Some(content_type) = head.headers.get(CONTENT_TYPE) {
        response = response.header(CONTENT_TYPE, content_type);
    }
    response.body(body.into()).unwrap()
}

fn refusal(code: u16, retry_after: u32) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "refused by the proxy", "code": code,
        "details": {"retryAfterSeconds": retry_after},
    });
    let response = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    response.body(status.to_string().into()).unwrap()
}
