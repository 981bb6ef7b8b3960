//! A server that speaks as much of Google Cloud Storage's XML API as a repository needs.
//!
//! No emulator speaks it. This one is written from the published reference: lists in pages, ranges, a generation to
//! match, and errors in XML. It proves that our requests are the ones described there, not that Google answers so.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State},
    response::{IntoResponse, Response},
    routing,
};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::bucket::{Bucket, unused_name};

/// Objects of one page of a list: few, so that small lists have several.
const PAGE: usize = 100;
/// The token of a client that may do everything.
const OWNER: &str = "owner";
/// The token of a client that may only read.
pub const READER: &str = "reader";

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct Gcs {
    address: SocketAddr,
    endpoint: String,
    name: String,
    objects: Objects,
    task: JoinHandle<()>,
}

type Objects = Arc<Mutex<Table>>;

#[derive(Debug, Default)]
struct Table {
    bucket: String,
    objects: BTreeMap<String, (Bytes, u64)>,
    generation: u64,
}

impl Drop for Gcs {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gcs {
    /// Starts a server with one bucket.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> Self {
        let name = unused_name();
        let objects: Objects = Arc::new(Mutex::new(Table { bucket: name.clone(), ..Table::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let task = serve(listener, objects.clone());
        Self { address, endpoint: format!("http://{address}"), name, objects, task }
    }

    /// Ends the server; its files stay.
    pub async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Starts it again where it was.
    ///
    /// # Panics
    /// When its port was taken meanwhile.
    pub async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port that it had");
        self.task = serve(listener, self.objects.clone());
    }

    /// Where it listens, as `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Its bucket.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        let variables = [("GOOGLE_BASE_URL", self.endpoint.as_str()), ("GOOGLE_BEARER_TOKEN", OWNER)];
        Bucket::new("gs", self.name.clone(), &variables)
    }
}

fn serve(listener: TcpListener, objects: Objects) -> JoinHandle<()> {
    let router = Router::new()
        .route("/{bucket}", routing::get(list))
        .route("/{bucket}/{*key}", routing::any(object))
        .layer(DefaultBodyLimit::max(256 << 20))
        .with_state(objects);
    tokio::spawn(async move { axum::serve(listener, router).await.expect("to serve") })
}

/// An error as the API writes it.
fn refused(status: StatusCode, code: &str) -> Response {
    let body =
        format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{code}.</Message></Error>");
    (status, [(header::CONTENT_TYPE, "application/xml; charset=UTF-8")], body).into_response()
}

/// The refusal of who may not do it, or of what is asked of another bucket.
fn refusal(table: &Table, bucket: &str, headers: &HeaderMap, writes: bool) -> Option<Response> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match token {
        Some(READER) if writes => Some(refused(StatusCode::FORBIDDEN, "AccessDenied")),
        Some(OWNER | READER) if bucket == table.bucket => None,
        Some(OWNER | READER) => Some(refused(StatusCode::NOT_FOUND, "NoSuchBucket")),
        _ => Some(refused(StatusCode::UNAUTHORIZED, "AuthenticationRequired")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ListQuery {
    #[serde(default)]
    prefix: String,
    continuation_token: Option<String>,
}

async fn list(
    State(objects): State<Objects>,
    Path(bucket): Path<String>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Response {
    let table = objects.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(refusal) = refusal(&table, &bucket, &headers, false) {
        return refusal;
    }
    let after = query.continuation_token.unwrap_or_default();
    let mut wanted = table.objects.iter().filter(|(key, _)| key.starts_with(&query.prefix) && **key > after);
    let page: Vec<_> = wanted.by_ref().take(PAGE).collect();
    let more = wanted.next().is_some();
    let mut body = format!("<?xml version='1.0'?><ListBucketResult><IsTruncated>{more}</IsTruncated>");
    if let (true, Some((last, _))) = (more, page.last()) {
        body += &format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(last));
    }
    for (key, (content, generation)) in page {
        let (key, size) = (escaped(key), content.len());
        body += &format!(
            "<Contents><Key>{key}</Key><Generation>{generation}</Generation>\
             <LastModified>2026-01-02T03:04:05.678Z</LastModified><ETag>\"{generation}\"</ETag><Size>{size}</Size></Contents>"
        );
    }
    ([(header::CONTENT_TYPE, "application/xml")], body + "</ListBucketResult>").into_response()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

async fn object(
    State(objects): State<Objects>,
    Path((bucket, key)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut table = objects.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(refusal) = refusal(&table, &bucket, &headers, method != Method::GET) {
        return refusal;
    }
    match method {
        Method::GET => get(&table, &key, &headers),
        Method::PUT => put(&mut table, key, &headers, body),
        Method::DELETE if table.objects.remove(&key).is_some() => StatusCode::NO_CONTENT.into_response(),
        Method::DELETE => refused(StatusCode::NOT_FOUND, "NoSuchKey"),
        _ => refused(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

fn get(table: &Table, key: &str, headers: &HeaderMap) -> Response {
    let Some((content, generation)) = table.objects.get(key) else {
        return refused(StatusCode::NOT_FOUND, "NoSuchKey");
    };
    let described = [
        (header::ETAG, format!("\"{generation}\"")),
        (header::LAST_MODIFIED, "Fri, 02 Jan 2026 03:04:05 GMT".to_owned()),
    ];
    let Some(range) = headers.get(header::RANGE) else {
        return (described, content.clone()).into_response();
    };
    let size = content.len();
    let Some((first, last)) = range.to_str().ok().and_then(|range| bounds(range, size)) else {
        return refused(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
    };
    let answered = [(header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}"))];
    (StatusCode::PARTIAL_CONTENT, described, answered, content.slice(first..=last)).into_response()
}

/// First and last byte of `bytes=FIRST-LAST`; the end of a file is not what a repository asks for.
fn bounds(range: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && first < size).then(|| (first, last.min(size - 1)))
}

fn put(table: &mut Table, key: String, headers: &HeaderMap, content: Bytes) -> Response {
    let create_only = headers.get("x-goog-if-generation-match").is_some_and(|generation| generation == "0");
    if create_only && table.objects.contains_key(&key) {
        return refused(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
    }
    table.generation += 1;
    let generation = table.generation;
    table.objects.insert(key, (content, generation));
    ([
        (header::ETAG, format!("\"{generation}\"")),
        ("x-goog-generation".parse().expect("a name"), generation.to_string()),
    ])
    .into_response()
}
