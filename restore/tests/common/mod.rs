//! Embedded clusters, a shop to fill them with, and a repository for its backups.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use serde_json::{Value, json};
use stillpoint_agent::{self as agent, BackupRequest};
use stillpoint_api::{ResourceType, Scope};
use stillpoint_apiserver::Server;
use stillpoint_catalog::{self as catalog, Backup, Draft};
use stillpoint_objects::{
    discovery::discover,
    list::{list_at, read_revision},
    retry::Retry,
    write::{self, Created, DryRun},
};
use stillpoint_repository::{
    Kdf, Password, Repository, Store,
    signing::{SigningKey, Trust},
};
use stillpoint_restore::{self as restore, Applied, Error, Plan, RestoreRequest};
use tokio::sync::watch;

/// The name of the good backup.
pub(crate) const GOOD: &str = "good";

/// Objects by reference, such as `deployments.apps/shop/web`.
pub(crate) type Objects = BTreeMap<String, (ResourceType, Value)>;

/// An embedded API server.
pub(crate) struct Cluster {
    pub(crate) server: Server,
    pub(crate) client: Client,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let server = Server::start(stillpoint_apiserver::Config::default()).await.unwrap();
        let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Self { client: Client::try_from(config).unwrap(), server }
    }

    /// Creates an object and returns it as the server has it.
    pub(crate) async fn create(&self, resource: &str, object: Value) -> Value {
        let resource = ResourceType {
            name: resource.parse().unwrap(),
            version: object["apiVersion"].as_str().unwrap().rsplit('/').next().unwrap().into(),
            kind: object["kind"].as_str().unwrap().into(),
            namespaced: object["metadata"].get("namespace").is_some(),
        };
        match write::create(&self.client, &resource, &object, DryRun::No, &Retry::default()).await.unwrap() {
            Created::New(created) => created,
            Created::Exists(existing) => panic!("it exists: {existing}"),
        }
    }

    pub(crate) async fn namespace(&self, name: &str) {
        self.create("namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
    }

    /// Everything that can be listed.
    pub(crate) async fn objects(&self) -> Objects {
        let retry = Retry::default();
        let at = read_revision(&self.client, &retry).await.unwrap();
        let mut objects = Objects::new();
        for served in discover(&self.client, &retry).await.unwrap().types.iter().filter(|served| served.verbs.list) {
            let of = &served.resource;
            let mut pages = list_at(&self.client, of, None, at, &retry);
            while let Some(page) = pages.next().await.unwrap() {
                for item in page.items().map(Result::unwrap) {
                    let object = stillpoint_api::ObjectRef::new(
                        of.name.clone(),
                        item.meta.namespace.as_deref(),
                        item.meta.name.as_ref(),
                    );
                    objects.insert(object.to_string(), (of.clone(), item.value().unwrap()));
                }
            }
        }
        objects
    }

    /// Plans a restore and applies it.
    pub(crate) async fn restore(&self, backup: &Backup, request: &RestoreRequest) -> Result<(Plan, Applied), Error> {
        let plan = self.plan(backup, request).await?;
        let applied = restore::apply(&self.client, backup, &plan, None, watch::Sender::default()).await?;
        Ok((plan, applied))
    }

    pub(crate) async fn plan(&self, backup: &Backup, request: &RestoreRequest) -> Result<Plan, Error> {
        let discovery = discover(&self.client, &Retry::default()).await.unwrap();
        restore::plan(backup, &discovery, request).await
    }
}

/// A repository of backups, and its bytes.
pub(crate) struct Backups {
    pub(crate) objects: Arc<InMemory>,
    pub(crate) repository: Repository,
    pub(crate) key: SigningKey,
}

impl Backups {
    pub(crate) async fn new() -> Self {
        let objects = Arc::new(InMemory::new());
        let store = Store::new(objects.clone(), Path::default(), "memory://backups");
        let repository = Repository::init(store, &Password::new("secret"), Kdf::fast_for_tests()).await.unwrap();
        Self { objects, repository, key: SigningKey::generate() }
    }

    /// A repository with the good backup of a cluster.
    pub(crate) async fn of(cluster: &Cluster) -> (Self, Backup) {
        Self::of_scope(cluster, Scope::default()).await
    }

    pub(crate) async fn of_scope(cluster: &Cluster, scope: Scope) -> (Self, Backup) {
        let backups = Self::new().await;
        backups.take(cluster, GOOD, scope, Some(&backups.key)).await;
        let backup = backups.find(GOOD).await.unwrap();
        (backups, backup)
    }

    pub(crate) async fn take(&self, cluster: &Cluster, name: &str, scope: Scope, key: Option<&SigningKey>) {
        let request = BackupRequest { strict: true, ..BackupRequest::new(name, "shop", scope) };
        agent::create(cluster.client.clone(), &self.repository, &request, key, watch::Sender::default()).await.unwrap();
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::new([self.key.public()])
    }

    pub(crate) async fn find(&self, name: &str) -> Result<Backup, catalog::Error> {
        catalog::find(&self.repository, name, &self.trust()).await
    }

    /// A copy of a backup with one object changed, signed by the same key.
    pub(crate) async fn doctored(&self, good: &Backup, object: &str, change: impl Fn(&mut Value)) -> Backup {
        let mut draft = Draft::begin(&self.repository, "doctored").await.unwrap();
        let mut changed = 0;
        for file in good.files().await.unwrap() {
            let (mut writer, mut lines) = (draft.writer().file_writer(), good.objects(&file).unwrap());
            while let Some(line) = lines.next().await.unwrap() {
                let mut value: Value = serde_json::from_slice(&line.raw).unwrap();
                if file.object(&line.name).to_string() == object {
                    change(&mut value);
                    changed += 1;
                }
                writer.append(&line.name, value.to_string().as_bytes()).await.unwrap();
            }
            draft.place(&file.resource.name, file.namespace.as_deref(), writer.finish().await.unwrap());
        }
        assert_eq!(changed, 1, "{object} is not in the backup");
        let sealed = draft.seal(good.manifest.cut.read_at).await.unwrap();
        let mut manifest = good.manifest.clone();
        manifest.backup.name = "doctored".into();
        manifest.trees = sealed.trees.clone();
        sealed.commit(&manifest, Some(&self.key)).await.unwrap();
        self.find("doctored").await.unwrap()
    }

    /// The paths of the repository's packs.
    pub(crate) async fn packs(&self) -> Vec<Path> {
        use futures::TryStreamExt;
        let files: Vec<_> = self.objects.list(Some(&Path::from("data"))).try_collect().await.unwrap();
        files.into_iter().map(|file| file.location).collect()
    }

    /// Flips one bit in the middle of a file of the repository.
    pub(crate) async fn flip(&self, path: &Path) {
        let mut bytes = self.objects.get(path).await.unwrap().bytes().await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.objects.put(path, bytes.into()).await.unwrap();
    }
}

pub(crate) fn of_core(kind: &str, namespace: &str, name: &str, field: &str, value: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}});
    object[field] = value;
    object
}

/// A Deployment or a ReplicaSet.
pub(crate) fn workload(kind: &str, namespace: &str, name: &str) -> Value {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

fn pod_spec() -> Value {
    json!({"serviceAccountName": "web", "containers": [{"name": "web", "image": "web:1"}]})
}

pub(crate) fn owned_by(mut object: Value, owner: &Value) -> Value {
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true,
    }]);
    object
}

fn site() -> Value {
    let metadata = json!({"name": "blog", "namespace": "shop"});
    json!({"apiVersion": "shop.example.com/v1", "kind": "Site", "metadata": metadata, "spec": {"size": 3}})
}

/// The definition of Sites, of which `spec.size` must be a number.
pub(crate) fn site_definition(version: &str) -> Value {
    let size = json!({"type": "object", "properties": {"size": {"type": "integer"}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": size}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "sites.shop.example.com"},
        "spec": {
            "group": "shop.example.com", "scope": "Namespaced",
            "names": {"plural": "sites", "singular": "site", "kind": "Site", "listKind": "SiteList"},
            "versions": [{"name": version, "served": true, "storage": true, "schema": schema}],
        },
    })
}

impl Cluster {
    /// A shop whose Deployment `web` runs a Pod, and a Site that owns the Deployment `blog`.
    pub(crate) async fn fill(&self) {
        self.namespace("shop").await;
        self.create("serviceaccounts", of_core("ServiceAccount", "shop", "web", "secrets", json!([]))).await;
        self.create("configmaps", of_core("ConfigMap", "shop", "settings", "data", json!({"colour": "blue"}))).await;
        self.create("secrets", of_core("Secret", "shop", "token", "data", json!({"token": "c2VjcmV0"}))).await;
        let ports = json!({"selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]});
        self.create("services", of_core("Service", "shop", "web", "spec", ports)).await;
        let deployment = self.create("deployments.apps", workload("Deployment", "shop", "web")).await;
        let set = owned_by(workload("ReplicaSet", "shop", "web-1"), &deployment);
        let set = self.create("replicasets.apps", set).await;
        let pod = owned_by(of_core("Pod", "shop", "web-1-a", "spec", pod_spec()), &set);
        self.create("pods", pod).await;
        self.bind().await;
        let site = self.create_site().await;
        self.create("deployments.apps", owned_by(workload("Deployment", "shop", "blog"), &site)).await;
    }

    async fn bind(&self) {
        let subjects = json!([{"kind": "ServiceAccount", "name": "web", "namespace": "shop"}]);
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "web", "namespace": "shop"}, "subjects": subjects, "roleRef": role,
        });
        self.create("rolebindings.rbac.authorization.k8s.io", binding).await;
    }

    async fn create_site(&self) -> Value {
        self.define(site_definition("v1")).await;
        self.create("sites.shop.example.com", site()).await
    }

    /// A Platform that owns the definition of Sites, and a Site.
    pub(crate) async fn fill_platform(&self) {
        self.namespace("shop").await;
        let mut definition = site_definition("v1");
        definition["metadata"]["name"] = "platforms.shop.example.com".into();
        definition["spec"]["scope"] = "Cluster".into();
        definition["spec"]["names"] =
            json!({"plural": "platforms", "singular": "platform", "kind": "Platform", "listKind": "PlatformList"});
        self.define(definition).await;
        let platform = json!({"apiVersion": "shop.example.com/v1", "kind": "Platform", "metadata": {"name": "main"}});
        let platform = self.create("platforms.shop.example.com", platform).await;
        self.define(owned_by(site_definition("v1"), &platform)).await;
        self.create("sites.shop.example.com", site()).await;
    }

    /// Creates a definition and waits until its type is served.
    async fn define(&self, definition: Value) {
        let defined = definition["metadata"]["name"].as_str().unwrap().parse().unwrap();
        self.create("customresourcedefinitions.apiextensions.k8s.io", definition).await;
        let deadline = Instant::now() + Duration::from_secs(30);
        while !write::is_served(&self.client, &defined, "v1", &Retry::default()).await.unwrap() {
            assert!(Instant::now() < deadline, "{defined} is not served");
            tokio::task::yield_now().await;
        }
    }
}
