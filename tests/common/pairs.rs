//! A writer that changes X and then Y, back to back, and logs the revision of every accepted write.
//!
//! The log is the truth that backups are held against: at a revision, X and Y are what was last written by then.

use std::collections::BTreeSet;

use http::Method;
use kube::Client;
use serde_json::{Value, json};
use stillpoint_repository::Repository;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    backups,
    cluster::{ask, config_maps, create, create_config_maps, eventually, get, patch},
};

/// X and Y: objects of different types whose annotation carries a number.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// The path of X.
    pub(crate) x: String,
    /// The path of Y.
    pub(crate) y: String,
}

/// The numbers that X and Y carry.
pub(crate) type Numbers = (u64, u64);

/// Revisions and the numbers that were written at them, in the order of writing.
#[derive(Debug, Default)]
pub(crate) struct Log {
    x: Vec<(u64, u64)>,
    y: Vec<(u64, u64)>,
}

impl Log {
    /// What X and Y were at a revision.
    pub(crate) fn at(&self, revision: u64) -> Numbers {
        let last = |writes: &[(u64, u64)]| {
            let written = writes.partition_point(|(at, _)| *at <= revision);
            writes[..written].last().expect("the objects are older than the revision").1
        };
        (last(&self.x), last(&self.y))
    }

    /// Whether there was any revision at which X and Y carried these numbers.
    pub(crate) fn were_ever(&self, numbers: Numbers) -> bool {
        self.x.iter().chain(&self.y).any(|(revision, _)| *revision >= self.first() && self.at(*revision) == numbers)
    }

    /// The first revision at which both exist.
    fn first(&self) -> u64 {
        self.x[0].0.max(self.y[0].0)
    }
}

/// A writer at work.
pub(crate) struct Writer {
    task: JoinHandle<Log>,
    stop: CancellationToken,
}

impl Writer {
    /// Creates both objects and starts to write.
    pub(crate) async fn start(client: &Client, pair: &Pair) -> Self {
        let mut log = Log::default();
        for (path, writes) in [(&pair.x, &mut log.x), (&pair.y, &mut log.y)] {
            let (collection, name) = path.rsplit_once('/').unwrap();
            let created = create(client, collection, &named(collection, name)).await;
            writes.push((revision(&created), 0));
        }
        let stop = CancellationToken::new();
        let task = tokio::spawn(write(client.clone(), pair.clone(), log, stop.clone()));
        Self { task, stop }
    }

    /// Stops; everything that was written.
    pub(crate) async fn stop(self) -> Log {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

async fn write(client: Client, pair: Pair, mut log: Log, stop: CancellationToken) -> Log {
    for number in 1.. {
        if stop.is_cancelled() {
            break;
        }
        let change = json!({"metadata": {"annotations": {"number": number.to_string()}}});
        log.x.push((revision(&patch(&client, &pair.x, &change).await), number));
        log.y.push((revision(&patch(&client, &pair.y, &change).await), number));
    }
    log
}

fn named(collection: &str, name: &str) -> Value {
    let mut object = json!({"metadata": {"name": name, "annotations": {"number": "0"}}});
    // custom objects must say their type
    if let [_, "apis", group, version, .., plural] = collection.split('/').collect::<Vec<_>>()[..] {
        object["apiVersion"] = format!("{group}/{version}").into();
        object["kind"] = kind(plural).into();
    }
    object
}

/// The kind that [`definition`] gives to a plural.
fn kind(plural: &str) -> String {
    let singular = plural.trim_end_matches('s');
    singular[..1].to_uppercase() + &singular[1..]
}

/// A definition of namespaced custom objects of any content.
pub(crate) fn definition(group: &str, plural: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": plural.trim_end_matches('s'), "kind": kind(plural)},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// The number that an object carries.
pub(crate) fn number(object: &Value) -> u64 {
    object["metadata"]["annotations"]["number"].as_str().unwrap().parse().unwrap()
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// Backups of the proof.
const BACKUPS: usize = 50;
/// Objects between X and Y.
const PADDING: usize = 3000;

/// Takes backups of a namespace while a pair in it is written, and naive lists between them.
///
/// In each backup X and Y must be exactly the last writes at or before its revision. The lists, each type at its own
/// moment, are the control: they must show a state that never was, or the writer was too slow to prove anything.
#[allow(clippy::print_stdout, reason = "the figures of the proof")]
pub(crate) async fn prove_one_revision(client: &Client, namespace: &str) {
    let group = format!("{namespace}.example.com");
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    create(client, definitions, &definition(&group, "ledgers")).await;
    let ledgers = format!("/apis/{group}/v1/namespaces/{namespace}/ledgers");
    eventually("the ledgers are served", || async { ask(client, Method::GET, &ledgers, &Value::Null).await.is_ok() })
        .await;
    create_config_maps(client, namespace, "padding", PADDING, 500).await;
    let pair = Pair { x: format!("{}/first", config_maps(namespace)), y: format!("{ledgers}/last") };
    let writer = Writer::start(client, &pair).await;

    let repository = backups::repository().await;
    let (mut taken, mut naive) = (Vec::new(), Vec::new());
    for round in 0..BACKUPS {
        let name = format!("backup-{round}");
        let scope = backups::namespaces(&[namespace]);
        let report = backups::back_up(client, &repository, &name, scope).await.unwrap();
        assert!(backups::record(&report.manifest, "configmaps.core").captured > PADDING as u64);
        let ledger = format!("ledgers.{group}/{namespace}/last");
        let numbers = captured(&repository, &name, &format!("configmaps/{namespace}/first"), &ledger).await;
        taken.push((report.manifest.cut.revision, numbers));
        naive.push((naively(client, &pair.x, "first").await, naively(client, &pair.y, "last").await));
    }
    let log = writer.stop().await;

    for (revision, numbers) in &taken {
        assert_eq!(*numbers, log.at(*revision), "at revision {revision}");
    }
    let different: BTreeSet<_> = taken.iter().map(|(_, numbers)| numbers).collect();
    assert!(different.len() > BACKUPS / 2, "the writer hardly wrote: {different:?}");
    let violations = naive.iter().filter(|numbers| !log.were_ever(**numbers)).count();
    println!(
        "{} writes; {BACKUPS} backups exact; {violations} of {} naive lists show a state that never was",
        log.x.len(),
        naive.len()
    );
    assert!(violations > 0, "the control did not fail: {naive:?}");
}

async fn captured(repository: &Repository, name: &str, x: &str, y: &str) -> Numbers {
    let backup = backups::find(repository, name).await;
    (number(&backups::object(&backup, x).await), number(&backups::object(&backup, y).await))
}

/// What a list of one type, taken now and page by page, says of one object.
async fn naively(client: &Client, path: &str, name: &str) -> u64 {
    let (collection, _) = path.rsplit_once('/').unwrap();
    let (mut token, mut found) = (String::new(), None);
    loop {
        let page = get(client, &format!("{collection}?limit=250&continue={token}")).await;
        let items = page["items"].as_array().unwrap();
        found = found.or(items.iter().find(|item| item["metadata"]["name"] == name).map(number));
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            return found.unwrap();
        }
    }
}
