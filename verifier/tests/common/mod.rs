//! A small shop on an embedded cluster, its backup, and doctored copies of that backup.
//!
//! Every copy is made through the same public types that write real backups, and but for the one thing that a test
//! changes it is a perfect backup: a check that finds anything else in it is wrong.
#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::Arc;

use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use serde_json::{Value, json};
use stillpoint_agent::{self as agent, BackupRequest};
use stillpoint_api::{
    Check, CheckKind, GroupResource, Judgement, Manifest, ResourceType, Scope, ScratchKind, TestResult, Verdict,
};
use stillpoint_catalog::{self as catalog, Draft};
use stillpoint_objects::{
    retry::Retry,
    write::{self, DryRun},
};
use stillpoint_repository::{
    Kdf, Node, Password, Repository, Store,
    signing::{SigningKey, Trust},
};
use stillpoint_verifier::{self as verifier, Error, TestRequest, VolumeTests, scratch::ScratchCluster};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The name of the good backup.
pub(crate) const GOOD: &str = "good";

/// A repository with one good backup.
pub(crate) struct Lab {
    pub(crate) objects: Arc<InMemory>,
    pub(crate) repository: Repository,
    pub(crate) key: SigningKey,
}

/// The objects of one file of a backup, as the list gave them.
pub(crate) struct File {
    pub(crate) resource: ResourceType,
    pub(crate) namespace: Option<String>,
    pub(crate) objects: Vec<Value>,
}

/// Everything in a backup, to be changed.
pub(crate) struct Contents {
    pub(crate) files: Vec<File>,
    pub(crate) manifest: Manifest,
    /// Directories of volumes by namespace and claim, whose trees are in the repository.
    pub(crate) volumes: Vec<(String, String, Node)>,
}

impl Lab {
    /// Fills an embedded cluster with the shop and backs it up.
    pub(crate) async fn new() -> Self {
        Self::with_scope(Scope::default()).await
    }

    /// A lab for a damage, with its control: the good backup, copied without a change, is proven.
    pub(crate) async fn with_control() -> Self {
        let lab = Self::new().await;
        lab.doctored("control", |_| {}).await;
        assert_proven(&lab.test("control").await);
        lab
    }

    pub(crate) async fn with_scope(scope: Scope) -> Self {
        let cluster = ScratchCluster::start(ScratchKind::Embedded).await.unwrap();
        fill(&cluster.client()).await;
        let lab = Self::of(cluster.client(), scope).await;
        cluster.shutdown().await.unwrap();
        lab
    }

    /// Backs up a cluster.
    pub(crate) async fn of(client: kube::Client, scope: Scope) -> Self {
        let objects = Arc::new(InMemory::new());
        let store = Store::new(objects.clone(), Path::default(), "memory://lab");
        let repository = Repository::init(store, &Password::new("secret"), Kdf::fast_for_tests()).await.unwrap();
        let key = SigningKey::generate();
        let request = BackupRequest { strict: true, ..BackupRequest::new(GOOD, "shop", scope) };
        let progress = watch::Sender::default();
        agent::create(client, &repository, &request, Some(&key), progress).await.unwrap();
        Self { objects, repository, key }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::new([self.key.public()])
    }

    /// Tests a backup on the embedded scratch cluster, the lab's key pinned.
    pub(crate) async fn test(&self, name: &str) -> Verdict {
        self.test_with(name, self.trust()).await.unwrap()
    }

    pub(crate) async fn test_with(&self, name: &str, trust: Trust) -> Result<Verdict, Error> {
        self.test_on(ScratchKind::Embedded, name, trust).await
    }

    pub(crate) async fn test_on(&self, scratch: ScratchKind, name: &str, trust: Trust) -> Result<Verdict, Error> {
        self.test_volumes(scratch, name, trust, VolumeTests::default()).await
    }

    pub(crate) async fn test_volumes(
        &self,
        scratch: ScratchKind,
        name: &str,
        trust: Trust,
        volumes: VolumeTests,
    ) -> Result<Verdict, Error> {
        let request = TestRequest { scratch, trust, volumes, cancel: CancellationToken::new() };
        verifier::test(&self.repository, name, &request, watch::Sender::default()).await
    }

    /// Reads all of the good backup.
    pub(crate) async fn contents(&self) -> Contents {
        let backup = catalog::find(&self.repository, GOOD, &self.trust()).await.unwrap();
        let mut files = Vec::new();
        for file in backup.files().await.unwrap() {
            let mut objects = Vec::new();
            let mut lines = backup.objects(&file).unwrap();
            while let Some(object) = lines.next().await.unwrap() {
                objects.push(serde_json::from_slice(&object.raw).unwrap());
            }
            files.push(File { resource: file.resource, namespace: file.namespace, objects });
        }
        Contents { files, manifest: backup.manifest, volumes: Vec::new() }
    }

    /// Writes a copy of the good backup after `change`, with a manifest that names its trees, signed by the lab's key.
    pub(crate) async fn doctored(&self, name: &str, change: impl FnOnce(&mut Contents)) {
        let mut contents = self.contents().await;
        change(&mut contents);
        self.write(name, contents, Some(&self.key)).await;
    }

    pub(crate) async fn write(&self, name: &str, contents: Contents, key: Option<&SigningKey>) {
        let Contents { files, mut manifest, volumes } = contents;
        let mut draft = Draft::begin(&self.repository, name).await.unwrap();
        for file in files {
            let mut writer = draft.writer().file_writer();
            for object in &file.objects {
                writer.append(name_of(object), object.to_string().as_bytes()).await.unwrap();
            }
            draft.place(&file.resource.name, file.namespace.as_deref(), writer.finish().await.unwrap());
        }
        for (namespace, claim, node) in volumes {
            draft.place_volume(&namespace, &claim, node);
        }
        let sealed = draft.seal(manifest.cut.read_at).await.unwrap();
        manifest.backup.name = name.into();
        manifest.trees = sealed.trees.clone();
        sealed.commit(&manifest, key).await.unwrap();
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

impl Contents {
    fn file(&mut self, resource: &GroupResource, namespace: Option<&str>) -> &mut File {
        let found = self.files.iter_mut().find(|f| f.resource.name == *resource && f.namespace.as_deref() == namespace);
        found.unwrap_or_else(|| panic!("the backup has no file of {resource} in {namespace:?}"))
    }

    /// The object written `deployments.apps/shop/web`.
    pub(crate) fn object(&mut self, object: &str) -> &mut Value {
        let object: stillpoint_api::ObjectRef = object.parse().unwrap();
        let file = self.file(&object.resource, object.namespace.as_deref());
        let found = file.objects.iter_mut().find(|value| name_of(value) == object.name);
        found.unwrap_or_else(|| panic!("{object} is not in the backup"))
    }

    /// Takes an object out of its file and lets the manifest count it.
    pub(crate) fn drop_object(&mut self, object: &str) {
        let object: stillpoint_api::ObjectRef = object.parse().unwrap();
        let file = self.file(&object.resource, object.namespace.as_deref());
        let before = file.objects.len();
        file.objects.retain(|value| name_of(value) != object.name);
        assert_eq!(file.objects.len() + 1, before, "{object} is not in the backup");
    }

    /// Takes an object out as if it had never existed.
    pub(crate) fn forget_object(&mut self, object: &str) {
        self.drop_object(object);
        let resource = object.parse::<stillpoint_api::ObjectRef>().unwrap().resource;
        let record = self.manifest.types.iter_mut().find(|record| record.resource.name == resource).unwrap();
        record.captured -= 1;
        record.existed = record.existed.map(|existed| existed - 1);
    }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// The backup is proven: every check passed.
#[track_caller]
pub(crate) fn assert_proven(verdict: &Verdict) {
    let wrong: Vec<_> = verdict.checks.iter().filter(|check| check.judgement != Judgement::Passed).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(verdict.result, TestResult::Proven);
}

/// The backup failed one check and no other; the check is returned.
#[track_caller]
pub(crate) fn assert_failed_only(verdict: &Verdict, kind: CheckKind) -> &Check {
    let failed = verdict.checks.iter().filter(|check| check.judgement == Judgement::Failed).collect::<Vec<_>>();
    assert_eq!(failed.iter().map(|check| check.kind).collect::<Vec<_>>(), [kind], "{failed:#?}");
    assert_eq!(verdict.result, TestResult::Failed);
    failed[0]
}

/// A check names a subject with a message that holds `message`, and nothing else.
#[track_caller]
pub(crate) fn assert_names_only(check: &Check, subject: &str, message: &str) {
    let found: Vec<_> = check.findings.iter().map(|f| (f.subject.as_str(), f.message.as_str())).collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].0, subject, "{found:#?}");
    assert!(found[0].1.contains(message), "{found:#?}");
}

/// Creates an object and returns it as the server has it.
pub(crate) async fn create(client: &kube::Client, resource: &str, object: Value) -> Value {
    let api_version = object["apiVersion"].as_str().unwrap();
    let resource = ResourceType {
        name: resource.parse().unwrap(),
        version: api_version.rsplit('/').next().unwrap().into(),
        kind: object["kind"].as_str().unwrap().into(),
        namespaced: object["metadata"].get("namespace").is_some(),
    };
    match write::create(client, &resource, &object, DryRun::No, &Retry::default()).await.unwrap() {
        write::Created::New(created) => created,
        write::Created::Exists(existing) => panic!("it exists: {existing}"),
    }
}

fn owner(owner: &Value) -> Value {
    json!([{"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true}])
}

/// The shop: what runs, what it reads, and a type of its own.
pub(crate) async fn fill(client: &kube::Client) {
    create(client, "namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})).await;
    let of = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}});
    let with = |mut object: Value, field: &str, value: Value| {
        object[field] = value;
        object
    };
    create(client, "configmaps", with(of("ConfigMap", "settings"), "data", json!({"colour": "blue"}))).await;
    create(client, "configmaps", with(of("ConfigMap", "unused"), "data", json!({"a": "b"}))).await;
    create(client, "secrets", with(of("Secret", "token"), "data", json!({"token": "c2VjcmV0"}))).await;
    create(client, "serviceaccounts", of("ServiceAccount", "web")).await;
    let ports = json!({"selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]});
    create(client, "services", with(of("Service", "web"), "spec", ports)).await;
    let pod = pod_spec();
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    let workload = |kind: &str, name: &str| json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    let deployment = create(client, "deployments.apps", workload("Deployment", "web")).await;
    let mut set = workload("ReplicaSet", "web-1");
    set["metadata"]["ownerReferences"] = owner(&deployment);
    let set = create(client, "replicasets.apps", set).await;
    let mut running = with(of("Pod", "web-1-a"), "spec", pod);
    running["metadata"]["ownerReferences"] = owner(&set);
    running["metadata"]["labels"] = json!({"app": "web"});
    create(client, "pods", running).await;
    fill_custom(client).await;
}

async fn fill_custom(client: &kube::Client) {
    let names = json!({"plural": "orders", "singular": "order", "kind": "Order", "listKind": "OrderList"});
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let versions = json!([{"name": "v1", "served": true, "storage": true, "schema": schema}]);
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "orders.shop.example.com"},
        "spec": {"group": "shop.example.com", "scope": "Namespaced", "names": names, "versions": versions},
    });
    create(client, "customresourcedefinitions.apiextensions.k8s.io", definition).await;
    let orders = "orders.shop.example.com".parse().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !write::is_served(client, &orders, "v1", &Retry::default()).await.unwrap() {
        assert!(std::time::Instant::now() < deadline, "orders are not served");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for name in ["first", "second"] {
        let order = json!({"apiVersion": "shop.example.com/v1", "kind": "Order",
            "metadata": {"name": name, "namespace": "shop"}, "spec": {"items": [{"sku": "a", "count": 2}]}});
        create(client, "orders.shop.example.com", order).await;
    }
}

fn pod_spec() -> Value {
    json!({
        "serviceAccountName": "web",
        "containers": [{
            "name": "web", "image": "web:1",
            "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}}],
        }],
        "volumes": [{"name": "settings", "configMap": {"name": "settings"}}],
    })
}
