//! A counter that goes from volume A to volume B to a ConfigMap C, each step after the answer to the last.
//!
//! At every instant A ≥ B ≥ C ≥ A − 1: a copy that is not one instant shows numbers that never stood beside each other.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use kube::config::Kubeconfig;
use rand::RngExt;
use serde_json::json;
use stillpoint_agent::OnStep;
use stillpoint_catalog as catalog;
use stillpoint_repository::{Repository, signing::Trust};
use stillpoint_test_support::require;
use tokio::task::JoinHandle;

use super::{
    cluster::{Real, config_map, config_maps, create, eventually, patch},
    in_pod::InPod,
    volumes::{IDLE, NODE, file_in, pod},
};

/// Writes the counter to A and to B, every other time without a sync there, then to C, and says it. `$1` and `$2` are the
/// folders, `$3` is C's address and `$4` to `$6` are what opens the way to it.
const COUNTS: &str = r#"
write() { printf %020d $n | dd of="$1/counter" bs=20 conv=notrunc$2 2>/dev/null; }
n=0
while n=$((n + 1)); do
  write "$1" ,fsync
  if [ $((n % 2)) = 0 ]; then write "$2" ,fsync; else write "$2"; fi
  curl --silent --show-error --fail --output /dev/null --cacert "$4" --cert "$5" --key "$6" --request PATCH \
    --header 'Content-Type: application/merge-patch+json' --data "{\"data\":{\"text\":\"$n\"}}" "$3"
  echo $n
done"#;

/// What one backup holds of A, B and C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) c: u64,
}

impl Numbers {
    pub(crate) fn stood_beside_each_other(self) -> bool {
        let Self { a, b, c } = self;
        a >= b && b >= c && c + 1 >= a
    }

    pub(crate) fn are_even(&self) -> bool {
        self.a == self.b && self.b == self.c
    }

    pub(crate) fn lack_b(&self) -> bool {
        self.a > self.b
    }

    pub(crate) fn lack_c(&self) -> bool {
        self.a == self.b && self.b > self.c
    }
}

/// Who passes the counter on, until it is told to end.
pub(crate) struct Counter {
    rounds: Arc<AtomicU64>,
    who: Who,
}

enum Who {
    Task(Arc<AtomicBool>, JoinHandle<()>),
    Processes(InPod),
}

impl Counter {
    /// This process passes it on: a freeze stops it at A or at B.
    pub(crate) async fn of_this_process(real: &Real, a: &Path, b: &Path) -> Self {
        let path = make_c(real).await;
        let open = |folder: &Path| {
            let path = folder.join("counter");
            Arc::new(OpenOptions::new().create(true).write(true).truncate(false).open(path).unwrap())
        };
        let (a, b, client) = (open(a), open(b), real.client.clone());
        let (ended, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (seen, count) = (ended.clone(), rounds.clone());
        let task = tokio::spawn(async move {
            for n in 1.. {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                write(a.clone(), n, true).await;
                write(b.clone(), n, n % 2 == 0).await;
                patch(&client, &path, &json!({"data": {"text": n.to_string()}})).await;
                count.store(n, Ordering::Relaxed);
            }
        });
        Self { rounds, who: Who::Task(ended, task) }
    }

    /// Processes of a pod that mounts both pass it on: a pause of the pod stops them anywhere, between B and C too.
    pub(crate) async fn of_a_pod(real: &Real, a: &Path, b: &Path) -> Self {
        let path = make_c(real).await;
        pod(real, "counter", &["a", "b"], IDLE, &[]).await;
        let kubeconfig = Kubeconfig::read_from(require::env(NODE).unwrap()).unwrap();
        let cluster = kubeconfig.clusters[0].cluster.clone().unwrap();
        let user = kubeconfig.auth_infos[0].auth_info.clone().unwrap();
        let c = format!("{}{path}", cluster.server.unwrap().trim_end_matches('/'));
        let [authority, certificate, key] =
            [cluster.certificate_authority, user.client_certificate, user.client_key].map(Option::unwrap);
        let mut processes = InPod::new(real, "counter").await;
        let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
        let mut script = processes.command(&["sh", "-ec", COUNTS, "sh", a, b, &c, &authority, &certificate, &key]);
        let output = processes.start(script.stdout(Stdio::piped())).stdout.take().unwrap();
        let rounds = Arc::new(AtomicU64::new(0));
        let count = rounds.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                count.store(line.parse().unwrap(), Ordering::Relaxed);
            }
        });
        Self { rounds, who: Who::Processes(processes) }
    }

    /// How long a round takes while nothing stops it.
    pub(crate) async fn round(&self) -> Duration {
        let (before, began) = (self.rounds.load(Ordering::Relaxed), Instant::now());
        eventually("the counter goes on", async || self.rounds.load(Ordering::Relaxed) >= before + 20).await;
        began.elapsed() / 20
    }

    pub(crate) async fn end(self) {
        match self.who {
            Who::Task(ended, task) => {
                ended.store(true, Ordering::Relaxed);
                task.await.unwrap();
            }
            Who::Processes(processes) => drop(processes),
        }
    }
}

/// Makes C, and gives its path.
async fn make_c(real: &Real) -> String {
    create(&real.client, &config_maps(&real.namespace), &config_map("counter", "0")).await;
    format!("{}/counter", config_maps(&real.namespace))
}

/// One write of fixed width; it blocks a thread of its own while the filesystem stands still.
async fn write(file: Arc<File>, n: u64, sync: bool) {
    let write = move || {
        file.write_all_at(format!("{n:020}").as_bytes(), 0).unwrap();
        if sync {
            file.sync_data().unwrap();
        }
    };
    tokio::task::spawn_blocking(write).await.unwrap();
}

/// Holds each step of a window for up to three rounds.
pub(crate) fn holding(round: Duration) -> OnStep {
    Arc::new(move |_| {
        let wait = round.mul_f64(rand::rng().random_range(0.0..3.0));
        tokio::time::sleep(wait).boxed()
    })
}

pub(crate) async fn numbers(repository: &Repository, real: &Real, name: &str) -> Numbers {
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().trim().parse::<u64>().unwrap();
    let backup = catalog::find(repository, name, &Trust::default()).await.unwrap();
    let wanted = format!("configmaps.core/{}/counter", real.namespace).parse().unwrap();
    let (resource, object) = backup.object(&wanted).await.unwrap().unwrap();
    let c = object.value(&resource).unwrap()["data"]["text"].as_str().unwrap().parse().unwrap();
    let of = async |claim| number(&file_in(repository, &backup, claim, "counter").await.unwrap());
    Numbers { a: of("a").await, b: of("b").await, c }
}
