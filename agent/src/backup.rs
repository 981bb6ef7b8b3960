//! Takes one backup: from the request to the commit.
//!
//! What happens once stands here (which cluster, name and lock, manifest, commit); what can be retried, an attempt at
//! one revision, is apart, so that a lost revision costs lists and never a half-written backup.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use stillpoint_api::{Backup, Cluster, Cut, Manifest, Outcome, Scope, Trees, VolumeIntent, manifest::FORMAT_VERSION};
use stillpoint_catalog::{self as catalog, Committed, Draft};
use stillpoint_objects::{
    discovery::{self, Discovery},
    filter::Selection,
    list::{self, Revision},
    retry::Retry,
};
use stillpoint_repository::{
    Id, Repository,
    signing::{SigningKey, Trust},
};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    attempt::cut,
    cut::{Helpers, Quiesce, Stored, Subject, VolumesRequest},
    taken::Taken,
    unit::{Context, ends_attempt},
};

/// The namespace whose uid the field takes for the cluster's.
const CLUSTER_ID_NAMESPACE: &str = "kube-system";

/// How long a backup that failed may take to remove what its nodes have stored: its failure may be the repository's.
const FORGET: Duration = Duration::from_secs(30);

/// What a user asks for.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The backup's name.
    pub name: String,
    /// The name the cluster goes by.
    pub cluster: String,
    /// What to take.
    pub scope: Scope,
    /// Whether anything missing fails the backup instead of degrading it.
    pub strict: bool,
    /// How volumes are copied; none where nobody is to copy them.
    pub volumes: Option<VolumesRequest>,
    /// Cancelled, the backup ends before its commit and leaves nothing.
    pub cancel: CancellationToken,
}

impl BackupRequest {
    /// A request that tolerates what is missing, by name, and that nobody cancels.
    pub fn new(name: impl Into<String>, cluster: impl Into<String>, scope: Scope) -> Self {
        let (name, cluster) = (name.into(), cluster.into());
        Self { name, cluster, scope, strict: false, volumes: None, cancel: CancellationToken::new() }
    }
}

/// How far a backup is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The cut that is being tried, from 1; 0 before the first.
    pub attempt: u32,
    /// Its revision.
    pub revision: u64,
    /// Units (a type, in a namespace or across the cluster) to capture.
    pub units: u64,
    /// Units that are captured.
    pub units_done: u64,
    /// Objects captured so far.
    pub objects: u64,
    /// Helper pods that were waited for, of how many, while they are.
    pub helpers: Option<(u64, u64)>,
    /// Whether only helper pods are left to see to.
    pub removing_helpers: bool,
    /// Whether hooks run or writers stand still.
    pub quiescing: bool,
    /// What each node is at with volumes, for people.
    pub nodes: BTreeMap<String, String>,
}

/// A backup that was taken.
#[derive(Debug)]
pub struct Report {
    /// Its manifest.
    pub manifest: Manifest,
    /// Where it is in the repository.
    pub committed: Committed,
}

/// Takes a backup and signs it with `key`, or leaves it unsigned without one.
///
/// # Errors
/// There is no backup: the name is taken, the cluster or the repository fails, or `strict` met something missing.
pub async fn create(
    client: kube::Client,
    repository: &Repository,
    request: &BackupRequest,
    key: Option<&SigningKey>,
    progress: watch::Sender<Progress>,
) -> Result<Report, Error> {
    let started = Timestamp::now();
    let selection = Selection::compile(&request.scope)?;
    let retry = Retry::default();
    let discovery = discovery::discover(&client, &retry).await?;
    let cluster = identify(&client, request, &discovery, &retry).await?;
    let previous = catalog::newest(repository, &cluster.name, &Trust::default()).await?;
    let draft = Draft::begin(repository, &request.name).await?;
    let writer = draft.writer();
    let (revision, collect_needs) = (Revision(0), false);
    let context = Context {
        client,
        retry,
        revision,
        selection,
        writer: writer.clone(),
        collect_needs,
        progress: progress.clone(),
    };
    // dropped with this call if nothing else ends it
    let (helpers, _guard) = Helpers::new(&request.cancel);
    let mut job = Job {
        repository,
        request,
        key,
        started,
        discovery,
        cluster,
        previous,
        helpers: helpers.clone(),
        quiesce: None,
        parts: Vec::new(),
    };
    let report = Box::pin(job.run(draft, context)).await;
    if let Some(quiesce) = &job.quiesce {
        quiesce.end().await;
    }
    helpers.end(&progress).await;
    if report.is_err() {
        // a program that ends after a failure must not leave its lock
        writer.abandon().await;
        let forget = async {
            for part in &job.parts {
                // kept by nothing else, a prune removes what it holds
                if let Err(error) = repository.forget(part).await {
                    tracing::warn!(%error, %part, "a part of the backup that failed keeps a snapshot");
                }
            }
        };
        if time::timeout(FORGET, forget).await.is_err() {
            tracing::warn!("the repository does not answer: parts of the backup that failed may keep their snapshots");
        }
    }
    report
}

async fn identify(
    client: &kube::Client,
    request: &BackupRequest,
    discovery: &Discovery,
    retry: &Retry,
) -> Result<Cluster, Error> {
    let uid = match list::namespace_uid(client, CLUSTER_ID_NAMESPACE, retry).await {
        Ok(uid) => uid,
        Err(error) if ends_attempt(&error) => return Err(error.into()),
        Err(_) => None,
    };
    Ok(Cluster { name: request.cluster.clone(), uid, version: discovery.server_version.clone() })
}

/// A backup whose cluster is known and whose objects are not.
struct Job<'a> {
    repository: &'a Repository,
    request: &'a BackupRequest,
    key: Option<&'a SigningKey>,
    started: Timestamp,
    discovery: Discovery,
    cluster: Cluster,
    previous: Option<catalog::Backup>,
    helpers: Helpers,
    quiesce: Option<Box<Quiesce>>,
    /// Snapshots that keep what nodes have stored.
    parts: Vec<Id>,
}

impl Job<'_> {
    async fn run(&mut self, mut draft: Draft, mut context: Context) -> Result<Report, Error> {
        let request = self.request;
        let (cut, mut taken, stored) = tokio::select! {
            captured = self.capture(&mut context) => captured?,
            // from here on little is left to do, and a commit is not to be torn
            () = request.cancel.cancelled() => return Err(Error::Cancelled),
        };
        taken.problems.splice(0..0, self.discovery.failures.iter().cloned());
        let quiesce = self.quiesce.as_deref();
        let directories =
            taken.add_volumes(request.scope.volumes, |record| Some(quiesce?.record(record, &stored, cut.window)));
        taken.problems.extend(quiesce.into_iter().flat_map(Quiesce::hook_problems));
        if request.strict && !taken.problems.is_empty() {
            return Err(Error::Strict { problems: std::mem::take(&mut taken.problems) });
        }
        for (resource, namespace, content) in taken.files.drain(..) {
            draft.place(&resource, namespace.as_deref(), content);
        }
        if !self.parts.is_empty() {
            let trees: Vec<_> = directories.iter().filter_map(|(_, directory)| directory.subtree).collect();
            draft.adopt(self.repository, &trees, self.parts.clone()).await?;
        }
        for (record, directory) in directories {
            draft.place_volume(&record.namespace, &record.claim, directory);
        }
        let sealed = draft.seal(cut.read_at).await?;
        let manifest = self.manifest(cut, taken, sealed.trees.clone());
        let committed = sealed.commit(&manifest, self.key).await?;
        self.parts.clear();
        Ok(Report { manifest, committed })
    }

    /// Takes the cut, captures the API at it, and has the nodes store what they copied.
    async fn capture(&mut self, context: &mut Context) -> Result<(Cut, Taken, Stored), Error> {
        let Self { request, cluster, .. } = self;
        if let Some(volumes) = request.volumes.clone().filter(|_| request.scope.volumes == VolumeIntent::Wanted) {
            let subject = Subject {
                client: context.client.clone(),
                retry: context.retry.clone(),
                selection: &context.selection,
                scope: &request.scope,
                backup: &request.name,
                cluster: &cluster.name,
                previous: self.previous.as_ref().map(|backup| &backup.manifest),
                helpers: self.helpers.clone(),
                cancel: request.cancel.clone(),
                progress: context.progress.clone(),
            };
            self.quiesce = Some(Box::new(Quiesce::prepare(subject, volumes).await?));
        }
        let (cut, taken) = cut(context, &request.scope, &self.discovery, self.quiesce.as_deref_mut()).await?;
        let mut stored = Stored::default();
        if let Some(quiesce) = &mut self.quiesce {
            stored = quiesce.store().await;
            self.parts.clone_from(&stored.parts);
        }
        Ok((cut, taken, stored))
    }

    fn manifest(&self, cut: Cut, taken: Taken, trees: Trees) -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            backup: Backup { name: self.request.name.clone(), uid: uuid::Uuid::new_v4().to_string() },
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            repository_id: self.repository.id().to_string(),
            cluster: self.cluster.clone(),
            started: self.started,
            finished: Timestamp::now(),
            cut,
            scope: self.request.scope.clone(),
            outcome: if taken.problems.is_empty() { Outcome::Complete } else { Outcome::Degraded },
            problems: taken.problems,
            types: taken.types,
            volumes: taken.volumes,
            hooks: self.quiesce.as_deref().map(Quiesce::hook_records).unwrap_or_default(),
            trees,
            previous: self.previous.as_ref().map(|backup| backup.root),
        }
    }
}
