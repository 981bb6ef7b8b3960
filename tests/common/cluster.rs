//! Clusters to test with: the embedded server, and the real one that an environment variable names.
//!
//! Objects are plain JSON and types are paths: the tests speak to a server as any client would, without the code that
//! is tested.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, resume_unwind},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream};
use http::{Method, Request};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use stillpoint_apiserver::Server;
use stillpoint_test_support::require;

/// The real cluster.
pub(crate) const CLUSTER: &str = "STILLPOINT_TEST_CLUSTER";
/// The real cluster that compacts its history every few seconds.
pub(crate) const COMPACTING: &str = "STILLPOINT_TEST_CLUSTER_COMPACTING";

const CREATED_AT_ONCE: usize = 16;

/// An embedded server and a client of it.
pub(crate) struct Embedded {
    pub(crate) server: Arc<Server>,
    pub(crate) client: Client,
}

/// A new embedded server.
pub(crate) async fn embedded() -> Embedded {
    let server = Server::start(stillpoint_apiserver::Config::default()).await.unwrap();
    let client = client(config(Kubeconfig::from_yaml(&server.kubeconfig()).unwrap()).await);
    Embedded { server: Arc::new(server), client }
}

/// Where a test may use what is not in a namespace, under the name of its own.
const CLUSTER_SCOPED: [&str; 6] = [
    "/api/v1/persistentvolumes/NAMESPACE-a",
    "/api/v1/persistentvolumes/NAMESPACE-b",
    "/apis/apiregistration.k8s.io/v1/apiservices/v1.NAMESPACE.example.com",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ledgers.NAMESPACE.example.com",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/NAMESPACE",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles/NAMESPACE",
];

/// A new namespace of a real cluster, for one test.
#[derive(Clone)]
pub(crate) struct Real {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) namespace: String,
}

/// Runs a test in a new namespace of the real cluster that `variable` names, one test at a time; the namespace, and
/// what bears its name, is removed whatever becomes of the test. Without the variable the test is skipped by name.
pub(crate) async fn on_real_cluster(variable: &str, test: impl AsyncFnOnce(Real)) {
    let Some(kubeconfig) = require::env(variable) else { return };
    let _alone = alone(kubeconfig.clone()).await;
    let config = config(Kubeconfig::read_from(&kubeconfig).unwrap()).await;
    let real = Real { client: client(config.clone()), config, namespace: format!("proof-{}", &uuid()[..8]) };
    Box::pin(in_namespace(real, test)).await;
}

/// Makes the namespace that `real` names and runs a test in it; the same is removed as of a test of its own.
pub(crate) async fn in_namespace(real: Real, test: impl AsyncFnOnce(Real)) {
    create_namespace(&real.client, &real.namespace).await;
    let ended = AssertUnwindSafe(test(real.clone())).catch_unwind().await;
    for path in CLUSTER_SCOPED.into_iter().chain(["/api/v1/namespaces/NAMESPACE"]) {
        // most tests made none of them
        let _ = ask(&real.client, Method::DELETE, &path.replace("NAMESPACE", &real.namespace), &Value::Null).await;
    }
    if let Err(panicked) = ended {
        resume_unwind(panicked);
    }
}

/// A failing API group is everybody's: no two tests use a cluster at a time.
pub(crate) async fn alone(kubeconfig: String) -> File {
    let lock = move || {
        let file = File::open(Path::new(&kubeconfig)).unwrap();
        file.lock().unwrap();
        file
    };
    tokio::task::spawn_blocking(lock).await.unwrap()
}

pub(crate) async fn config(kubeconfig: Kubeconfig) -> Config {
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// A client as the command line makes it: without kube's own retries, which would hide ours.
pub(crate) fn client(config: Config) -> Client {
    client_with(config, Some(Duration::from_secs(60)))
}

/// A client as the command line makes it for what may be silent for long.
pub(crate) fn client_for_streams(config: Config) -> Client {
    client_with(config, None)
}

fn client_with(mut config: Config, read_timeout: Option<Duration>) -> Client {
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(10));
    config.read_timeout = read_timeout;
    Client::try_from(config).unwrap()
}

pub(crate) fn uuid() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned()
}

/// Sends a request; the answer as JSON.
pub(crate) async fn ask(client: &Client, method: Method, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).header("content-type", content_type).body(bytes);
    client.request(request.unwrap()).await
}

pub(crate) async fn get(client: &Client, path: &str) -> Value {
    ask(client, Method::GET, path, &Value::Null).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

pub(crate) async fn create(client: &Client, path: &str, object: &Value) -> Value {
    ask(client, Method::POST, path, object).await.unwrap_or_else(|error| panic!("POST {path}: {error}"))
}

pub(crate) async fn patch(client: &Client, path: &str, change: &Value) -> Value {
    ask(client, Method::PATCH, path, change).await.unwrap_or_else(|error| panic!("PATCH {path}: {error}"))
}

pub(crate) async fn delete(client: &Client, path: &str) {
    ask(client, Method::DELETE, path, &Value::Null).await.unwrap_or_else(|error| panic!("DELETE {path}: {error}"));
}

/// Creates many objects, several at a time.
pub(crate) async fn create_all(client: &Client, path: &str, objects: impl IntoIterator<Item = Value>) {
    stream::iter(objects)
        .for_each_concurrent(CREATED_AT_ONCE, |object| async move { drop(create(client, path, &object).await) })
        .await;
}

pub(crate) async fn create_namespace(client: &Client, name: &str) {
    create(client, "/api/v1/namespaces", &json!({"metadata": {"name": name}})).await;
}

/// Creates `count` ConfigMaps named `PREFIX-00000` and so on, of about `size` bytes.
pub(crate) async fn create_config_maps(client: &Client, namespace: &str, prefix: &str, count: usize, size: usize) {
    let objects = (0..count).map(|number| config_map(&format!("{prefix}-{number:05}"), &noise(number, size)));
    create_all(client, &config_maps(namespace), objects).await;
}

pub(crate) fn config_map(name: &str, text: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"text": text}})
}

pub(crate) fn config_maps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

pub(crate) fn secrets(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets")
}

/// Text of `size` letters that compresses badly and is the same for the same seed.
pub(crate) fn noise(seed: usize, size: usize) -> String {
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:08x}", state >> 32)
    };
    let mut text = String::new();
    while text.len() < size {
        text.push_str(&next());
    }
    text.truncate(size);
    text
}

/// Waits until `condition` holds, for two minutes at most.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
