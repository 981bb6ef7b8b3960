//! `stillpoint hooks lint`.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{Pod, PodTemplateSpec},
};
use kube::{Client, ResourceExt};
use serde_json::Value;
use stillpoint_hooks::hook::{
    lint::{Finding, Severity, lint},
    manifest::{self, Subject},
    pod,
};

use super::list;
use crate::{
    args::{OutputArgs, UsageError},
    cluster::ClusterArgs,
    exit::Exit,
    output,
};

pub(super) const AFTER_HELP: &str = "Exit codes: 0 nothing found, 1 errors, 3 warnings only.\n\
    Examples:\n  stillpoint hooks lint -n shop\n  helm template shop | stillpoint hooks lint -f -";

#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// The namespace to look at [default: all]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Look at the manifests in FILE instead of the cluster; - is standard input; may be repeated
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// How long the pods' writers would stand still at most
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::duration)]
    window: Duration,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(args: LintArgs) -> anyhow::Result<Exit> {
    let LintArgs { namespace, filename, window, cluster, output } = args;
    let subjects = if filename.is_empty() {
        from_cluster(&cluster.connect().await?.client, namespace.as_deref()).await?
    } else {
        from_files(&filename, namespace.as_deref())?
    };
    let findings = lint(&subjects, window);
    output::print(output.output, &findings, || table(&findings, subjects.len()))?;
    Ok(match findings.iter().map(|finding| finding.severity).min() {
        None => Exit::Done,
        Some(Severity::Error) => Exit::Failed,
        Some(Severity::Warning) => Exit::Degraded,
    })
}

fn table(findings: &[Finding], looked_at: usize) -> String {
    let mut text = String::new();
    for finding in findings {
        let Finding { severity, place, subject, message, advice } = finding;
        let line = format!("{:<8}{place}: {subject}: {message}", severity.name());
        text += &format!("{}\n{:8}{}\n", output::printable(&line), "", advice);
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    text + &format!(
        "{}, {} in the hooks of {}\n",
        output::counted(count(Severity::Error), "error"),
        output::counted(count(Severity::Warning), "warning"),
        output::counted(looked_at as u64, "pod")
    )
}

fn from_files(files: &[PathBuf], namespace: Option<&str>) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for file in files {
        let text = read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
            .map_err(|error| UsageError(format!("{} is no valid YAML: {error}", file.display())))?;
        for document in documents {
            let found = manifest::subjects(&document, namespace.unwrap_or("default"));
            subjects.extend(found.map_err(|error| UsageError(format!("{}: {error}", file.display())))?);
        }
    }
    Ok(subjects)
}

fn read(file: &Path) -> io::Result<String> {
    if file != Path::new("-") {
        return fs::read_to_string(file);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map(|_| text)
}

/// Workloads by their templates, and the pods that differ from them.
async fn from_cluster(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for deployment in list::<Deployment>(client, namespace, None).await? {
        subjects.extend(of_template("Deployment", &deployment, deployment.spec.as_ref().map(|spec| &spec.template)));
    }
    for set in list::<StatefulSet>(client, namespace, None).await? {
        subjects.extend(of_template("StatefulSet", &set, set.spec.as_ref().map(|spec| &spec.template)));
    }
    for set in list::<DaemonSet>(client, namespace, None).await? {
        subjects.extend(of_template("DaemonSet", &set, set.spec.as_ref().map(|spec| &spec.template)));
    }
    for job in cron_jobs(client, namespace).await? {
        let template = job.spec.job_template.spec.as_ref().map(|spec| &spec.template);
        subjects.extend(of_template("CronJob", &job, template));
    }
    for job in list::<Job>(client, namespace, None).await?.iter().filter(|job| job.owner_references().is_empty()) {
        subjects.extend(of_template("Job", job, job.spec.as_ref().map(|spec| &spec.template)));
    }
    let written: HashSet<String> = subjects.iter().map(|subject| what_counts(&subject.pod)).collect();
    for pod in list::<Pod>(client, namespace, None).await? {
        let owned = !pod.owner_references().is_empty();
        let pod = pod::Pod::of(&pod);
        if !owned || !written.contains(&what_counts(&pod)) {
            subjects.push(Subject { place: format!("Pod {}", pod.id), pod });
        }
    }
    Ok(subjects)
}

/// A server older than Kubernetes 1.21 has them under another version.
async fn cron_jobs(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<CronJob>> {
    let listed = list::<CronJob>(client, namespace, None).await;
    match listed {
        Err(error) if matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404) => {
            output::note("the cluster serves no CronJobs of batch/v1: none was looked at");
            Ok(Vec::new())
        }
        listed => listed,
    }
}

fn of_template<K: ResourceExt>(kind: &str, workload: &K, template: Option<&PodTemplateSpec>) -> Option<Subject> {
    let (namespace, name) = (workload.namespace().unwrap_or_default(), workload.name_any());
    let pod = pod::Pod::of_template(&namespace, &name, template?);
    Some(Subject { place: format!("{kind} {namespace}/{name}"), pod })
}

/// What a lint of a pod depends on.
fn what_counts(pod: &pod::Pod) -> String {
    let ours = |key: &str| key.contains("hook.backup.velero.io/") || key.starts_with("hooks.stillpoint.dev/");
    let annotations: Vec<_> = pod.annotations.iter().filter(|(key, _)| ours(key)).collect();
    format!("{} {annotations:?} {:?}", pod.id.namespace, pod.containers)
}
