//! Takes one backup: from the request to the commit.
//!
//! What happens once stands here (which cluster, name and lock, manifest, commit); what can be retried, an attempt at
//! one revision, is apart, so that a lost revision costs lists and never a half-written backup.

use jiff::Timestamp;
use stillpoint_api::{Backup, Cluster, Cut, Manifest, Outcome, Scope, Trees, manifest::FORMAT_VERSION};
use stillpoint_catalog::{self as catalog, Committed, Draft};
use stillpoint_objects::{
    discovery::{self, Discovery},
    filter::Selection,
    list::{self, Revision},
    retry::Retry,
};
use stillpoint_repository::{
    Repository,
    signing::{SigningKey, Trust},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    attempt::cut,
    taken::Taken,
    unit::{Context, ends_attempt},
};

/// The namespace whose uid the field takes for the cluster's.
const CLUSTER_ID_NAMESPACE: &str = "kube-system";

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
    /// Cancelled, the backup ends before its commit and leaves nothing.
    pub cancel: CancellationToken,
}

impl BackupRequest {
    /// A request that tolerates what is missing, by name, and that nobody cancels.
    pub fn new(name: impl Into<String>, cluster: impl Into<String>, scope: Scope) -> Self {
        let (name, cluster) = (name.into(), cluster.into());
        Self { name, cluster, scope, strict: false, cancel: CancellationToken::new() }
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
    let draft = Draft::begin(repository, &request.name).await?;
    let writer = draft.writer();
    let (revision, collect_needs) = (Revision(0), false);
    let context = Context { client, retry, revision, selection, writer: writer.clone(), collect_needs, progress };
    let job = Job { repository, request, key, started, discovery, cluster };
    let report = job.run(draft, context).await;
    if report.is_err() {
        // a program that ends after a failure must not leave its lock
        writer.abandon().await;
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
}

impl Job<'_> {
    async fn run(self, mut draft: Draft, context: Context) -> Result<Report, Error> {
        let (cut, mut taken) = tokio::select! {
            taken = cut(context, &self.request.scope, &self.discovery) => taken?,
            // from here on little is left to do, and a commit is not to be torn
            () = self.request.cancel.cancelled() => return Err(Error::Cancelled),
        };
        taken.problems.splice(0..0, self.discovery.failures.iter().cloned());
        if self.request.strict && !taken.problems.is_empty() {
            return Err(Error::Strict { problems: taken.problems });
        }
        for (resource, namespace, content) in taken.files.drain(..) {
            draft.place(&resource, namespace.as_deref(), content);
        }
        let sealed = draft.seal(cut.read_at).await?;
        let manifest = self.manifest(cut, taken, sealed.trees.clone()).await?;
        let committed = sealed.commit(&manifest, self.key).await?;
        Ok(Report { manifest, committed })
    }

    async fn manifest(&self, cut: Cut, taken: Taken, trees: Trees) -> Result<Manifest, Error> {
        let previous = catalog::newest(self.repository, &self.cluster.name, &Trust::default()).await?;
        Ok(Manifest {
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
            hooks: Vec::new(),
            trees,
            previous: previous.map(|backup| backup.root),
        })
    }
}
