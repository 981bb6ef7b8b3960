//! `install` and `uninstall` on a real API server, and the agent's privileges on a real node.
//!
//! A privilege that nothing needs is one too many, and a missing one shows only on a node: each is taken away in turn.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, resume_unwind},
    path::Path,
    process::Command,
    sync::Mutex,
    time::Duration,
};

use common::{
    cluster::{self, ask, create, delete, eventually, get},
    shell::{self, User},
};
use futures::FutureExt;
use http::Method;
use kube::{Client, config::Kubeconfig};
use serde_json::{Value, json};
use stillpoint_test_support::{loop_mount::LoopMount, require};

const NODE: &str = "STILLPOINT_TEST_NODE";
const SYSTEM: &str = "/api/v1/namespaces/stillpoint-system";
const PODS: &str = "/api/v1/namespaces/stillpoint-system/pods";
const DAEMON_SET: &str = "/apis/apps/v1/namespaces/stillpoint-system/daemonsets/stillpoint-agent";

/// A cluster to install in.
struct Cluster {
    user: User,
    kubeconfig: String,
    client: Client,
}

/// Runs a test in the cluster that `variable` names, one at a time; what it installed is removed whatever becomes of it.
async fn in_cluster(variable: &str, test: impl AsyncFnOnce(&Cluster)) {
    let Some(kubeconfig) = require::env(variable) else { return };
    let _alone = cluster::alone(kubeconfig.clone()).await;
    let config = cluster::config(Kubeconfig::read_from(&kubeconfig).unwrap()).await;
    let cluster = Cluster { user: User::new(), kubeconfig, client: cluster::client(config) };
    let ended = AssertUnwindSafe(test(&cluster)).catch_unwind().await;
    cluster.uninstall();
    let _ = ask(&cluster.client, Method::DELETE, SYSTEM, &Value::Null).await;
    eventually("the namespace is gone", async || {
        ask(&cluster.client, Method::GET, SYSTEM, &Value::Null).await.is_err()
    })
    .await;
    if let Err(panicked) = ended {
        resume_unwind(panicked);
    }
}

impl Cluster {
    fn install(&self, more: &[&str]) -> Vec<Value> {
        let image = "localhost/stillpoint:test";
        let arguments = [&["install", "--image", image, "-o", "json", "--kubeconfig", &self.kubeconfig], more].concat();
        self.user.reads(&arguments).as_array().unwrap().clone()
    }

    fn uninstall(&self) -> Value {
        self.user.reads(&["uninstall", "--yes", "-o", "json", "--kubeconfig", &self.kubeconfig])
    }

    async fn may(&self, account: &str, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": format!("system:serviceaccount:stillpoint-system:{account}"),
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": {"verb": verb, "group": group, "resource": resource, "namespace": namespace},
            },
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        create(&self.client, path, &review).await["status"]["allowed"] == true
    }
}

fn changes(rows: &[Value]) -> Vec<&str> {
    let mut changes: Vec<_> = rows.iter().map(|row| row["change"].as_str().unwrap()).collect();
    changes.dedup();
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_install_changes_nothing_and_uninstall_leaves_nothing() {
    in_cluster(cluster::CLUSTER, async |cluster| {
        assert_eq!(changes(&cluster.install(&[])), ["created"]);
        // owners and times of fields are kept by the second
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(changes(&cluster.install(&[])), ["unchanged"]);

        let elsewhere = ["install", "--image", "a", "--namespace", "elsewhere", "--kubeconfig", &cluster.kubeconfig];
        cluster.user.is_refused(1, &["installed in the namespace stillpoint-system"], &elsewhere);
        let asks = ["uninstall", "--kubeconfig", &cluster.kubeconfig];
        cluster.user.runs(&asks).code(2);
        assert_eq!(get(&cluster.client, DAEMON_SET).await["kind"], "DaemonSet");

        let removed = cluster.uninstall()["removed"].as_array().unwrap().clone();
        assert!(removed.contains(&json!("namespaces/stillpoint-system")), "{removed:?}");
        for path in [
            SYSTEM,
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/stillpoint-agent",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/stillpoint-backup",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/stillpoint-restore",
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/stillpoint-agent",
        ] {
            assert!(ask(&cluster.client, Method::GET, path, &Value::Null).await.is_err(), "{path} is left");
        }
        assert_eq!(cluster.uninstall()["removed"], json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_into_the_namespace_keeps_it() {
    in_cluster(cluster::CLUSTER, async |cluster| {
        cluster.install(&[]);
        create(&cluster.client, &format!("{SYSTEM}/configmaps"), &cluster::config_map("theirs", "text")).await;
        let uninstalled = cluster.uninstall();
        assert_eq!(uninstalled["kept"][0]["object"], "namespaces/stillpoint-system");
        assert!(uninstalled["kept"][0]["reason"].as_str().unwrap().contains("configmaps.core/theirs"), "{uninstalled}");
        delete(&cluster.client, &format!("{SYSTEM}/configmaps/theirs")).await;
        assert_eq!(cluster.uninstall()["removed"], json!(["namespaces/stillpoint-system"]));

        // one that was there before is neither marked nor removed
        cluster::create_namespace(&cluster.client, "stillpoint-system").await;
        cluster.install(&[]);
        cluster.uninstall();
        assert_eq!(get(&cluster.client, SYSTEM).await["status"]["phase"], "Active");
        delete(&cluster.client, SYSTEM).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_may_read_nothing_and_the_client_may_do_nothing() {
    in_cluster(cluster::CLUSTER, async |cluster| {
        cluster.install(&[]);
        assert!(cluster.may("stillpoint-agent", "create", "authentication.k8s.io", "tokenreviews", "").await);
        for (verb, resource) in [("list", "pods"), ("get", "secrets"), ("get", "nodes"), ("list", "configmaps")] {
            for namespace in ["", "stillpoint-system"] {
                for account in ["stillpoint-agent", "stillpoint-client"] {
                    assert!(
                        !cluster.may(account, verb, "", resource, namespace).await,
                        "{account} may {verb} {resource}"
                    );
                }
            }
        }
        assert!(!cluster.may("stillpoint-client", "create", "authentication.k8s.io", "tokenreviews", "").await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_is_renewed_and_the_agents_roll() {
    in_cluster(cluster::CLUSTER, async |cluster| {
        cluster.install(&[]);
        let path = format!("{SYSTEM}/configmaps/stillpoint-agent-ca");
        let annotation =
            async || get(&cluster.client, DAEMON_SET).await["spec"]["template"]["metadata"]["annotations"].clone();
        let before = annotation().await;
        cluster::patch(&cluster.client, &path, &json!({"data": {"ca.crt": "another"}})).await;
        let rows = cluster.install(&[]);
        let changed: Vec<_> = rows.iter().filter(|row| row["change"] == "changed").map(|row| &row["object"]).collect();
        assert_eq!(
            changed,
            [
                "secrets/stillpoint-system/stillpoint-agent-tls",
                "configmaps/stillpoint-system/stillpoint-agent-ca",
                "daemonsets/stillpoint-system/stillpoint-agent"
            ]
        );
        assert_ne!(annotation().await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_is_what_kubectl_applies() {
    in_cluster(cluster::CLUSTER, async |cluster| {
        let Some(kubectl) = require::program("kubectl") else { return };
        let file = cluster.user.path("install.yaml");
        std::fs::write(&file, cluster.user.prints(0, &["install", "--image", "a/b", "--print"])).unwrap();
        // an old server's schema is none that a new kubectl reads
        let arguments = ["--kubeconfig", &cluster.kubeconfig, "apply", "--validate=false", "-f", &file];
        let applied = Command::new(kubectl).args(arguments).output().unwrap();
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        assert_eq!(get(&cluster.client, DAEMON_SET).await["spec"]["template"]["spec"]["hostPID"], true);
        assert_eq!(cluster.uninstall()["removed"].as_array().unwrap().len(), 13);
    })
    .await;
}

/// What is taken away from an agent's pod, and what it then says when it is to freeze the volume of a pod of user 999.
const NEEDED: [(&str, &str); 6] = [
    ("SYS_ADMIN", "CAP_SYS_ADMIN"),
    ("SYS_PTRACE", "Permission denied"),
    ("DAC_OVERRIDE", "Permission denied"),
    ("IPC_LOCK", "cannot lock the guard's memory"),
    ("hostPID", "No such file or directory"),
    ("cgroup", "cannot leave its caller's cgroup"),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_can_freeze_with_its_privileges_and_not_without_one_of_them() {
    in_cluster(NODE, async |cluster| {
        let Some(kind) = require::loop_device("ext4") else { return };
        shell::put_image_together();
        cluster.install(&["--host-network"]);
        let template = get(&cluster.client, DAEMON_SET).await["spec"]["template"].clone();
        let volume = LoopMount::new(kind);
        let data = volume.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&data, Some(999), Some(999)).unwrap();
        let mark = format!("writer-{}", cluster::uuid());
        create_when_admitted(&cluster.client, &writer(&data, &mark)).await;
        eventually("the writer runs", async || {
            get(&cluster.client, &format!("{PODS}/writer")).await["status"]["phase"] == "Running"
        })
        .await;

        assert_eq!(freezes(&cluster.client, &template, "nothing", &mark).await.0, 0);
        for (without, words) in NEEDED {
            let (code, said) = freezes(&cluster.client, &template, without, &mark).await;
            assert!(code == 125 && said.contains(words), "without {without}: {code}, {said}");
        }
        delete(&cluster.client, &format!("{PODS}/writer?gracePeriodSeconds=0")).await;
    })
    .await;
}

/// A pod that writes to a volume for ever; `mark` is on its command line.
fn writer(data: &Path, mark: &str) -> Value {
    json!({
        "metadata": {"name": "writer"},
        "spec": {
            "nodeName": "127.0.0.1", "hostNetwork": true, "automountServiceAccountToken": false,
            "securityContext": {"runAsUser": 999},
            "containers": [{
                "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                "command": ["sh", "-c", format!("while :; do date >/data/now; usleep 10000; done; : {mark}")],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "hostPath": {"path": data}}],
        },
    })
}

/// Freezes the writer's volume from a pod like an agent's without one privilege: the exit code, and what it said.
async fn freezes(client: &Client, template: &Value, without: &str, mark: &str) -> (i64, String) {
    let name = format!("without-{}", without.to_lowercase().replace('_', "-"));
    let mut spec = template["spec"].clone();
    (spec["nodeName"], spec["restartPolicy"]) = (json!("127.0.0.1"), json!("Never"));
    let container = &mut spec["containers"][0];
    let script = "for each in /proc/[0-9]*; do grep -qs $MARK $each/cmdline && found=$each; done; \
                  exec stillpoint freeze $found/root/data --max 5s -- true";
    container["command"] = json!(["sh", "-c", script]);
    container["env"].as_array_mut().unwrap().push(json!({"name": "MARK", "value": mark}));
    container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    for probe in ["livenessProbe", "readinessProbe"] {
        container.as_object_mut().unwrap().remove(probe);
    }
    container["securityContext"]["capabilities"]["add"].as_array_mut().unwrap().retain(|each| each != without);
    container["volumeMounts"].as_array_mut().unwrap().retain(|each| each["name"] != without);
    if without == "hostPID" {
        spec["hostPID"] = json!(false);
    }
    create_when_admitted(client, &json!({"metadata": {"name": name}, "spec": spec})).await;
    let ended = Mutex::new(Value::Null);
    eventually("the probe ends", async || {
        let pod = get(client, &format!("{PODS}/{name}")).await;
        let state = pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
        let has_ended = !state.is_null();
        *ended.lock().unwrap() = state;
        has_ended
    })
    .await;
    let ended = ended.into_inner().unwrap();
    (ended["exitCode"].as_i64().unwrap(), ended["message"].as_str().unwrap_or_default().to_owned())
}

/// A new namespace takes pods once its service accounts have their tokens.
async fn create_when_admitted(client: &Client, pod: &Value) {
    eventually("the namespace takes pods", async || match ask(client, Method::POST, PODS, pod).await {
        Err(kube::Error::Api(status)) if status.code == 403 => false,
        created => created.map(|_| true).unwrap(),
    })
    .await;
}
