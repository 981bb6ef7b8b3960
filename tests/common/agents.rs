//! Agents as `install` puts them on a real node, and who has them copy volumes to object storage.
//!
//! A test's own pods and claims are in its namespace; the agents are everybody's, and there is one test at a time.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, resume_unwind},
    process::Command,
};

use futures::{FutureExt, TryStreamExt};
use http::Method;
use kube::Client;
use object_store::{ObjectStore, aws::AmazonS3Builder};
use serde_json::{Value, json};
use stillpoint_agent::{Access, Agents, OnStep, VolumesRequest, Way};
use stillpoint_repository::{Password, Repository, Store, StoreOptions};
use stillpoint_test_support::{
    bucket::{self, Bucket},
    require,
};

use super::{
    cluster::{Real, ask, eventually, get, on_real_cluster},
    shell::{self, User},
    volumes::{NODE, NODE_NAME},
};

pub(crate) const PODS: &str = "/api/v1/namespaces/stillpoint-system/pods";

/// A cluster with agents, and a user whose repository is in object storage.
pub(crate) struct Installed {
    pub(crate) real: Real,
    pub(crate) user: User,
    pub(crate) kubeconfig: String,
    bucket: Bucket,
}

/// Runs a test in a namespace of a cluster with agents, which are removed whatever becomes of it.
pub(crate) async fn with_agents(test: impl AsyncFnOnce(&Installed)) {
    Box::pin(with_agents_behind(None, test)).await;
}

/// The same, with agents that know the API server by another address, as `HOST:PORT`.
pub(crate) async fn with_agents_behind(address: Option<String>, test: impl AsyncFnOnce(&Installed)) {
    let (Some(kubeconfig), Some(bucket)) = (require::env(NODE), bucket::s3()) else { return };
    on_real_cluster(NODE, async |real| {
        shell::put_image_together();
        let mut user = User::new().with("STILLPOINT_REPO", &format!("{}/agents", bucket.url));
        user = user.with("AWS_ALLOW_HTTP", "true");
        for (name, value) in &bucket.variables {
            user = user.with(name, value);
        }
        let installed = Installed { real, user, kubeconfig, bucket };
        let server = address.unwrap_or_else(|| installed.real.config.cluster_url.authority().unwrap().to_string());
        let image = ["--image", "localhost/stillpoint:test"];
        installed.runs(&[&["install", "--host-network", "--api-server", &server], &image[..]].concat());
        let ended = AssertUnwindSafe(async {
            installed.agent_is_ready().await;
            installed.user.prints(0, &["repo", "init"]);
            test(&installed).await;
        });
        let ended = ended.catch_unwind().await;
        installed.runs(&["uninstall", "--yes"]);
        eventually("the agents are gone", async || {
            ask(&installed.real.client, Method::GET, "/api/v1/namespaces/stillpoint-system", &Value::Null)
                .await
                .is_err()
        })
        .await;
        if let Err(panicked) = ended {
            resume_unwind(panicked);
        }
    })
    .await;
}

impl Installed {
    pub(crate) fn runs(&self, arguments: &[&str]) -> String {
        self.user.prints(0, &[arguments, &["--kubeconfig", &self.kubeconfig]].concat())
    }

    /// Waits for the agent, whose pod is put on the node by this test: the cluster has no scheduler.
    pub(crate) async fn agent_is_ready(&self) {
        let client = &self.real.client;
        eventually("the agent is ready", async || {
            let pods = get(client, PODS).await;
            let agents = pods["items"].as_array().unwrap();
            for agent in agents.iter().filter(|agent| agent["spec"]["nodeName"].is_null()) {
                let name = agent["metadata"]["name"].as_str().unwrap();
                let target = json!({"kind": "Node", "name": NODE_NAME});
                let binding =
                    json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target});
                let _ = ask(client, Method::POST, &format!("{PODS}/{name}/binding"), &binding).await;
            }
            agents.len() == 1 && is_ready(&agents[0])
        })
        .await;
    }

    /// The agent's processes, as this machine sees them: one, or none while it starts.
    pub(crate) fn agent_pids() -> Vec<u32> {
        let found = Command::new("pgrep").args(["-f", "^stillpoint agent"]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// The user's repository, opened by this process.
    pub(crate) async fn repository(&self) -> Repository {
        let Access { url, password, variables, .. } = self.access();
        let store = Store::connect_with(&url, &StoreOptions::default(), variables).unwrap();
        Repository::open(store, &Password::new(password)).await.unwrap()
    }

    /// How this process has the agents copy volumes, without hooks.
    pub(crate) fn volumes(&self, client: &Client, way: Way, on_step: Option<OnStep>) -> VolumesRequest {
        let namespace = "stillpoint-system".to_owned();
        let agents = Agents::Cluster { client: client.clone(), namespace, way };
        VolumesRequest { on_step, ..VolumesRequest::new(agents, self.access(), None) }
    }

    /// How much lies in a folder of the repository.
    pub(crate) async fn bytes_in(&self, folder: &str) -> u64 {
        let mut builder = AmazonS3Builder::new().with_bucket_name(&self.bucket.name).with_allow_http(true);
        for (name, value) in &self.bucket.variables {
            builder = builder.with_config(name.to_ascii_lowercase().parse().unwrap(), value);
        }
        let below = object_store::path::Path::from(format!("agents/{folder}"));
        let objects = builder.build().unwrap().list(Some(&below)).map_ok(|object| object.size);
        objects.try_fold(0, async |sum, size| Ok(sum + size)).await.unwrap()
    }

    fn access(&self) -> Access {
        self.access_to("agents")
    }

    /// How to reach a repository of that name.
    pub(crate) fn access_to(&self, name: &str) -> Access {
        let mut variables: BTreeMap<_, _> = self.bucket.variables.iter().cloned().collect();
        variables.insert("AWS_ALLOW_HTTP".to_owned(), "true".to_owned());
        let (url, password) = (format!("{}/{name}", self.bucket.url), "secret".to_owned());
        Access { url, password, variables, ..Access::default() }
    }

    pub(crate) fn create<'a>(&'a self, name: &'a str) -> [&'a str; 8] {
        let namespace = &self.real.namespace;
        ["backup", "create", name, "--unsigned", "--include-namespaces", namespace, "--kubeconfig", &self.kubeconfig]
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    pod["metadata"]["deletionTimestamp"].is_null() && conditions.iter().any(is_ready)
}
