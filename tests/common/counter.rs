//! A counter that goes from volume A to volume B to a ConfigMap C, each step after the answer to the last.
//!
//! At every instant A ≥ B ≥ C ≥ A − 1: a copy that is not one instant shows numbers that never stood beside each other.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use rand::RngExt;
use serde_json::json;
use stillpoint_agent::OnStep;
use stillpoint_catalog as catalog;
use stillpoint_hooks::pods;
use stillpoint_repository::{Repository, signing::Trust};
use tokio::{sync::Mutex, task::JoinHandle};

use super::{
    cluster::{Real, config_map, config_maps, create, eventually, get, patch},
    volumes::{file, pod},
};

/// Writes the counter to A and to B, tells it, and goes on once it is answered: every other write to B is not synced.
const COUNTS: &str = r#"
mkfifo /tmp/told /tmp/answered
exec 3<>/tmp/told 4<>/tmp/answered
write() { printf %020d $n | dd of=$1 bs=20 conv=notrunc$2 2>/dev/null || exit 1; }
n=0
while n=$((n + 1)); do
  write /a/counter ,fsync
  if [ $((n % 2)) = 0 ]; then write /b/counter ,fsync; else write /b/counter; fi
  echo $n >&3
  read -r _ <&4
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
    ended: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Counter {
    /// Passes it on to C whenever `write` has written it to A and B.
    async fn start<F: Future<Output = ()> + Send>(
        real: &Real,
        write: impl Fn(u64) -> F + Send + Sync + 'static,
    ) -> Self {
        create(&real.client, &config_maps(&real.namespace), &config_map("counter", "0")).await;
        let (ended, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (client, path) = (real.client.clone(), format!("{}/counter", config_maps(&real.namespace)));
        let (seen, count) = (ended.clone(), rounds.clone());
        let task = tokio::spawn(async move {
            for n in 1.. {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                write(n).await;
                patch(&client, &path, &json!({"data": {"text": n.to_string()}})).await;
                count.store(n, Ordering::Relaxed);
            }
        });
        Self { ended, rounds, task }
    }

    /// This process writes to A and B, which a freeze stops.
    pub(crate) async fn of_this_process(real: &Real, a: &Path, b: &Path) -> Self {
        let open = |folder: &Path| {
            let path = folder.join("counter");
            Arc::new(OpenOptions::new().create(true).write(true).truncate(false).open(path).unwrap())
        };
        let (a, b) = (open(a), open(b));
        Self::start(real, move |n| {
            let (a, b) = (a.clone(), b.clone());
            async move {
                write(a, n, true).await;
                write(b, n, n % 2 == 0).await;
            }
        })
        .await
    }

    /// A pod writes to A and B, which a pause of the pod stops, and has C written by this process.
    pub(crate) async fn of_a_pod(real: &Real) -> Self {
        pod(real, "counter", &["a", "b"], COUNTS, &[]).await;
        let pod = get(&real.client, &format!("/api/v1/namespaces/{}/pods/counter", real.namespace)).await;
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let inside = || {
            let processes = pods::processes(&uid).unwrap();
            let roots = processes.iter().map(|process| PathBuf::from(format!("/proc/{process}/root/tmp")));
            roots.into_iter().find(|tmp| tmp.join("answered").exists() && tmp.join("told").exists())
        };
        eventually("the pod counts", async || inside().is_some()).await;
        let tmp = inside().unwrap();
        let told = BufReader::new(File::open(tmp.join("told")).unwrap());
        let answered = OpenOptions::new().write(true).open(tmp.join("answered")).unwrap();
        let pipes = Arc::new(Mutex::new((told, answered)));
        Self::start(real, move |n| {
            let pipes = pipes.clone();
            async move {
                let mut pipes = pipes.lock_owned().await;
                let pass = move || {
                    let (told, answered) = &mut *pipes;
                    if n > 1 {
                        // the last number is in C by now
                        answered.write_all(b"\n").unwrap();
                    }
                    let mut line = String::new();
                    told.read_line(&mut line).unwrap();
                    assert_eq!(line.trim(), n.to_string());
                };
                tokio::task::spawn_blocking(pass).await.unwrap();
            }
        })
        .await
    }

    /// How long a round takes while nothing stops it.
    pub(crate) async fn round(&self) -> Duration {
        let (before, began) = (self.rounds.load(Ordering::Relaxed), Instant::now());
        eventually("the counter goes on", async || self.rounds.load(Ordering::Relaxed) >= before + 20).await;
        began.elapsed() / 20
    }

    pub(crate) async fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
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
    let of = async |claim| number(&file(repository, name, claim, "counter").await.unwrap());
    Numbers { a: of("a").await, b: of("b").await, c }
}
