//! The embedded API server under the real `kube` client.
//!
//! One binary, because every test starts its own server in milliseconds and links the same client.
#![allow(clippy::unwrap_used)]

mod crds;
mod discovery;
mod lifecycle;
mod lists;
mod objects;
mod patches;
mod validation;
mod watches;

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Client, Config,
    api::{Api, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::Status,
};
use serde_json::{Value, json};
use stillpoint_apiserver::Server;

/// A server and a client that reads its kubeconfig.
struct Cluster {
    server: Server,
    client: Client,
}

impl Cluster {
    async fn start() -> Self {
        Self::with(stillpoint_apiserver::Config::default()).await
    }

    async fn with(config: stillpoint_apiserver::Config) -> Self {
        let server = Server::start(config).await.unwrap();
        let client = client(&server.kubeconfig()).await;
        Self { server, client }
    }

    fn config_maps(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn namespace(&self, name: &str) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = object(json!({"metadata": {"name": name}}));
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    }

    async fn put(&self, namespace: &str, name: &str, text: &str) -> ConfigMap {
        let api = self.config_maps(namespace);
        match api.get_opt(name).await.unwrap() {
            None => api.create(&PostParams::default(), &config_map(name, text)).await.unwrap(),
            Some(mut present) => {
                present.data = config_map(name, text).data;
                api.replace(name, &PostParams::default(), &present).await.unwrap()
            }
        }
    }

    /// A request as raw HTTP would send it: status and JSON.
    async fn raw(&self, method: &str, path: &str, content_type: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = http_request(method, path, content_type, body);
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = http_body(response).await;
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.raw("GET", path, "", Value::Null).await
    }
}

async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    // A refusal with 504 is to be seen, not to be repeated.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn http_request(method: &str, path: &str, content_type: &str, body: Vec<u8>) -> http::Request<kube::client::Body> {
    let mut builder = http::Request::builder().method(method).uri(path);
    if !content_type.is_empty() {
        builder = builder.header("content-type", content_type);
    }
    builder.body(kube::client::Body::from(body)).unwrap()
}

async fn http_body(response: http::Response<kube::client::Body>) -> Vec<u8> {
    axum::body::to_bytes(axum::body::Body::new(response.into_body()), usize::MAX).await.unwrap().to_vec()
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn config_map(name: &str, text: &str) -> ConfigMap {
    object(json!({"metadata": {"name": name}, "data": {"text": text}}))
}

fn revision(version: Option<&String>) -> u64 {
    version.unwrap().parse().unwrap()
}

fn status(error: kube::Error) -> Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("not an answer of the server: {other}"),
    }
}

/// Asks until `question` answers, for at most ten seconds.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, question: impl Fn() -> F) -> T {
    let asking = async {
        loop {
            match question().await {
                Some(answer) => return answer,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asking).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}
