//! Claims of a real node that no running pod mounts are copied through helper pods of ours, of which nothing is left,
//! whatever becomes of them or of the backup.
//!
//! The cluster has no scheduler: where a pod is to run a task of the test puts it on the node.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    agents::with_agents,
    backups::PASSWORD,
    cluster::{self, Real, create, delete, eventually, get, on_real_cluster, patch},
    shell::{self, text},
    volumes::{IDLE, Lab, NODE, NODE_NAME, Scheduler, claim, file, kubelet_root, pod, pods, writes},
};
use futures::FutureExt;
use serde_json::{Value, json};
use stillpoint_agent::{HelperPods, OnStep, Step, UnmountedClaims, VolumesRequest};
use stillpoint_api::{ExclusionRule, Level, Manifest, Outcome};
use stillpoint_test_support::{loop_mount::LoopMount, require};

const IMAGE: &str = "localhost/stillpoint:test";

/// A claim with a file, and nobody who mounts it.
struct Alone {
    real: Real,
    lab: Lab,
    volume: LoopMount,
}

async fn alone(test: impl AsyncFnOnce(&Alone)) {
    let Some(ext4) = require::loop_device("ext4") else { return };
    on_real_cluster(NODE, async |real| {
        shell::put_image_together();
        let (volume, lab) = (LoopMount::new(ext4), Lab::new().await);
        std::fs::write(volume.path().join("file"), "content").unwrap();
        claim(&real, "a", &volume.path()).await;
        let path = format!("/api/v1/namespaces/{}/persistentvolumeclaims/a", real.namespace);
        eventually("the claim is bound", async || get(&real.client, &path).await["status"]["phase"] == "Bound").await;
        let alone = Alone { real, lab, volume };
        test(&alone).await;
        assert_eq!(helpers(&alone.real).await, [""; 0], "a helper pod is left");
    })
    .await;
}

async fn helpers(real: &Real) -> Vec<String> {
    pods(real).await.into_iter().filter(|name| name.starts_with("stillpoint-copy-")).collect()
}

impl Alone {
    fn command(&self, name: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stillpoint"));
        command.args(["backup", "create", name, "--unsigned", "--include-namespaces", &self.real.namespace]);
        command.args(["--node-local", NODE_NAME, "--kubeconfig", &require::env(NODE).unwrap()]);
        command.args(["--repo", &self.lab.url(), "-o", "json"]).args(more);
        command.arg("--kubelet-root").arg(kubelet_root());
        command.arg("--journal").arg(self.lab.folder.path().join("journal"));
        command.arg("--spool").arg(self.lab.folder.path().join("spool"));
        command.env("STILLPOINT_PASSWORD", PASSWORD).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn with_helpers(&self, name: &str, more: &[&str]) -> Command {
        self.command(name, &[&["--helper-image", IMAGE, "--helper-host-network"][..], more].concat())
    }

    /// How this process copies volumes, through helper pods where nobody mounts them.
    fn volumes(&self, on_step: Option<OnStep>) -> VolumesRequest {
        let pods = HelperPods { image: IMAGE.to_owned(), host_network: true, patience: Duration::from_secs(60) };
        let unmounted = UnmountedClaims::Copied(pods);
        VolumesRequest { unmounted, ..self.lab.volumes(&self.real.client, None, on_step) }
    }

    async fn is_held(&self, backup: &str) {
        assert_eq!(self.lab.file(backup, "a", "file").await.unwrap(), b"content");
    }
}

/// Waits for a command; its exit code and what it printed.
async fn ends(child: Child) -> (i32, Value, String) {
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let said = text(&ended.stderr);
    let code = ended.status.code().unwrap_or_else(|| panic!("it was killed: {said}"));
    (code, serde_json::from_slice(&ended.stdout).unwrap_or_default(), said)
}

/// What a backup says of its claim `a`, which it does not hold.
fn problem(backup: &Value) -> &str {
    let problems = backup["problems"].as_array().unwrap();
    let of_a = |problem: &&Value| problem["subject"].as_str().unwrap().ends_with("/a");
    problems.iter().find(of_a).unwrap_or_else(|| panic!("{backup}"))["message"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_no_pod_mounts_is_frozen_and_copied_and_its_pod_is_in_no_backup() {
    alone(async |alone| {
        let _scheduler = Scheduler::start(&alone.real);
        let (code, backup, said) = ends(alone.with_helpers("whole", &[]).spawn().unwrap()).await;
        assert_eq!((code, &backup["problems"]), (0, &json!([])), "{backup} {said}");
        let held = &backup["volumes"][0]["data"]["held"];
        assert_eq!((&held["level"], &held["method"]), (&json!("filesystem"), &json!("precopy")), "{held}");
        assert!(held["reason"].as_str().unwrap().contains("no running pod mounted it, a helper pod did"), "{held}");
        assert!(held["stopped"].is_object() && backup["windowMs"].as_f64().unwrap() > 0.0, "{backup}");
        alone.is_held("whole").await;
        assert_eq!(pods(&alone.real).await, [""; 0]);

        // while R was read it was there
        let manifest: Manifest = alone.lab.back_up(&alone.real, "again", alone.volumes(None)).await.manifest;
        let pods = manifest.types.iter().find(|of| of.resource.name.is("", "pods")).unwrap();
        let excluded: Vec<_> = pods.excluded.iter().map(|exclusion| (&exclusion.rule, exclusion.objects)).collect();
        assert_eq!((pods.captured, excluded), (0, vec![(&ExclusionRule::ExcludeLabel, 1)]));
        assert_eq!(manifest.outcome, Outcome::Complete);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_pod_cannot_run_is_left_out_by_name_and_the_others_are_copied() {
    alone(async |alone| {
        let Alone { real, lab, .. } = alone;
        let b = LoopMount::new(require::loop_device("ext4").unwrap());
        std::fs::write(b.path().join("file"), "of b").unwrap();
        claim(real, "b", &b.path()).await;
        pod(real, "holder", &["b"], IDLE, &[]).await;
        // nobody puts it on a node
        let (began, late) = (Instant::now(), alone.with_helpers("late", &["--volume-timeout", "3s"]));
        let (code, backup, _) = ends({ late }.spawn().unwrap()).await;
        assert_eq!(code, 3, "{backup}");
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        for words in ["no running pod mounts it", "does not run after 3 s", "the claim is Bound", "has no node"] {
            assert!(problem(&backup).contains(words), "{backup}");
        }
        assert_eq!(lab.file("late", "b", "file").await.unwrap(), b"of b");
        let strict = alone.with_helpers("strict", &["--volume-timeout", "3s", "--strict"]).spawn();
        let (code, _, said) = ends(strict.unwrap()).await;
        assert!(code == 1 && said.contains("does not run after 3 s"), "{code} {said}");

        let quota = json!({"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}});
        create(&real.client, &format!("/api/v1/namespaces/{}/resourcequotas", real.namespace), &quota).await;
        for (name, more, words) in [
            ("refused", &["--helper-image", IMAGE][..], "its pod is refused"),
            ("none", &["--no-helper-pods"], "no running pod mounts it"),
            ("unknown", &[], "give --helper-image"),
        ] {
            let (code, backup, said) = ends(alone.command(name, more).spawn().unwrap()).await;
            assert!(code == 3 && problem(&backup).contains(words), "{name}: {code} {backup} {said}");
            assert_eq!(helpers(real).await, [""; 0]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_create_pods_is_told_so_by_name() {
    alone(async |alone| {
        let Real { client, config, namespace } = &alone.real;
        let rule = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]});
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let role = json!({"metadata": {"name": namespace}, "rules": [rule]});
        create(client, &format!("{rbac}/clusterroles"), &role).await;
        let binding = json!({
            "metadata": {"name": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}],
        });
        create(client, &format!("{rbac}/clusterrolebindings"), &binding).await;
        let mut config = config.clone();
        config.auth_info.impersonate = Some("reader".to_owned());
        let reader = Real { client: cluster::client(config), ..alone.real.clone() };
        let began = Instant::now();
        let manifest = alone.lab.back_up(&reader, "reader", alone.volumes(None)).await.manifest;
        assert!(began.elapsed() < Duration::from_secs(10), "a right that nobody has was waited for");
        let said = manifest.problems[0].to_string();
        for words in ["no running pod mounts it", "\"reader\" cannot create resource \"pods\"", "the right to create"] {
            assert!(said.contains(words), "{said}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_agents_are_installed_their_image_is_the_pods_and_nothing_has_to_be_said() {
    let Some(ext4) = require::loop_device("ext4") else { return };
    with_agents(async |installed| {
        let (real, volume) = (&installed.real, LoopMount::new(ext4));
        std::fs::write(volume.path().join("file"), "content").unwrap();
        claim(real, "a", &volume.path()).await;
        let _scheduler = Scheduler::start(real);
        let taken = installed.user.prints(0, &installed.create("whole"));
        assert!(taken.contains("no running pod mounted it, a helper pod did"), "{taken}");
        let described = installed.user.prints(0, &["backup", "describe", "whole"]);
        assert!(described.contains("data of 1 held") && described.contains("filesystem"), "{described}");
        let held = file(&installed.repository().await, "whole", "a", "file").await;
        assert_eq!(held.unwrap(), b"content");
        assert_eq!(pods(real).await, [""; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_mounts_the_claim_elsewhere_meanwhile_lowers_what_the_copy_is_worth() {
    alone(async |alone| {
        let _scheduler = Scheduler::start(&alone.real);
        let (real, windows) = (alone.real.clone(), Arc::new(AtomicU64::new(0)));
        let on_step: OnStep = Arc::new(move |step| {
            let (real, windows) = (real.clone(), windows.clone());
            let comes = async move {
                if step == Step::Revision && windows.fetch_add(1, Ordering::Relaxed) == 0 {
                    create(&real.client, &format!("/api/v1/namespaces/{}/pods", real.namespace), &elsewhere()).await;
                }
            };
            comes.boxed()
        });
        let manifest = alone.lab.back_up(&alone.real, "shared", alone.volumes(Some(on_step))).await.manifest;
        let held = manifest.volumes[0].data.held().unwrap();
        assert_eq!((held.level, manifest.outcome), (Level::Fuzzy, Outcome::Degraded));
        assert_eq!(held.strangers, ["pod late on node elsewhere mounted it meanwhile"]);
        let path = format!("/api/v1/namespaces/{}/pods/late?gracePeriodSeconds=0", alone.real.namespace);
        delete(&alone.real.client, &path).await;
    })
    .await;
}

/// A pod of another node that mounts the claim.
fn elsewhere() -> Value {
    json!({
        "metadata": {"name": "late"},
        "spec": {
            "nodeName": "elsewhere",
            "containers": [{"name": "main", "image": "none", "volumeMounts": [{"name": "a", "mountPath": "/a"}]}],
            "volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "a"}}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_at_once_have_a_pod_each_and_a_cancelled_one_takes_its_own_along() {
    alone(async |alone| {
        // it waits for a pod that nobody puts on a node
        let cancelled = alone.with_helpers("cancelled", &[]).spawn().unwrap();
        eventually("there is a helper pod", async || helpers(&alone.real).await.len() == 1).await;
        Command::new("kill").args(["-INT", &cancelled.id().to_string()]).status().unwrap();
        let (code, _, said) = ends(cancelled).await;
        assert!(code == 1 && said.contains("cancelled"), "{code} {said}");
        assert_eq!(helpers(&alone.real).await, [""; 0]);

        let _scheduler = Scheduler::start(&alone.real);
        let back_up = |name: &'static str| alone.lab.back_up(&alone.real, name, alone.volumes(None));
        let (one, two) = tokio::join!(back_up("one"), back_up("two"));
        for (name, report) in [("one", one), ("two", two)] {
            assert!(report.manifest.problems.is_empty(), "{:?}", report.manifest.problems);
            alone.is_held(name).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_backup_leaves_is_removed_by_the_next_one_and_what_lives_is_not() {
    alone(async |alone| {
        let Alone { real, volume, .. } = alone;
        let _scheduler = Scheduler::start(real);
        let mut killed = alone.with_helpers("killed", &[]).spawn().unwrap();
        let path = format!("/api/v1/namespaces/{}/pods", real.namespace);
        eventually("its pod runs", async || get(&real.client, &path).await["items"][0]["status"]["phase"] == "Running")
            .await;
        killed.kill().unwrap();
        killed.wait().unwrap();
        writes(volume.path().join("after"), Duration::from_secs(1)).await;
        let left = helpers(real).await;
        assert_eq!(left.len(), 1, "{left:?}");

        // what another backup renews stays
        let labels =
            json!({"stillpoint.dev/copies": "stillpoint-copy-a", "stillpoint.dev/exclude-from-backup": "true"});
        let mut living = elsewhere();
        living["metadata"] = json!({"name": "living", "labels": labels});
        living["spec"]["nodeName"] = json!(NODE_NAME);
        create(&real.client, &path, &living).await;
        let (renewed, client) = (format!("{path}/living"), real.client.clone());
        let renewing = tokio::spawn(async move {
            for count in 0_u64.. {
                let change = json!({"metadata": {"annotations": {"stillpoint.dev/renewed": count.to_string()}}});
                patch(&client, &renewed, &change).await;
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        });
        let (code, backup, said) = ends(alone.with_helpers("next", &[]).spawn().unwrap()).await;
        renewing.abort();
        assert_eq!((code, &backup["problems"]), (0, &json!([])), "{backup} {said}");
        alone.is_held("next").await;
        assert_eq!(pods(real).await, ["living"]);
        delete(&real.client, &format!("{path}/living?gracePeriodSeconds=0")).await;
    })
    .await;
}
