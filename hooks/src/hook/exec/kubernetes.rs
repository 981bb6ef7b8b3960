//! Commands in the containers of a cluster, through the API server's `exec`.
//!
//! # Flow
//! The pod is read first, so that a pod of the same name but another uid is never mistaken for the one that was meant;
//! then one websocket carries the command's streams and, as its last message, its exit.
//!
//! # Caveats
//! Kubernetes has no request that ends a command: neither closing the connection nor deleting anything but the pod does.
//! `KubernetesProcess::end` therefore has a shell in the same container, where there is one, find and kill it, and
//! counts as ended only what the connection then reports as ended.
//!
//! Before version 5 of the protocol (Kubernetes 1.30) standard input cannot be closed alone: closing it closes the
//! connection and the exit is lost. Whoever wants the exit keeps the input open until it is there.

mod end;
mod status;

use std::{future::Future, pin::Pin, time::Instant};

use async_trait::async_trait;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess},
};

use super::{Command, Ended, ExecError, Executor, Exit, Process, Reader, Writer};
use crate::hook::pod::PodId;

/// How much of an output may wait to be read.
const BUFFER: usize = 64 * 1024;

/// Runs commands through a cluster's API.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
}

impl Kubernetes {
    /// An executor for the cluster of `client`, which must not give up on a connection that is silent for a while:
    /// a command may have nothing to say for longer than an ordinary request lasts.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Refuses by name what cannot run a command.
    async fn find(&self, id: &PodId, container: &str) -> Result<(), ExecError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &id.namespace);
        let pod = match pods.get_opt(&id.name).await {
            Ok(Some(pod)) => pod,
            Ok(None) => return Err(ExecError::Gone(format!("the pod {id} is gone"))),
            Err(error) => return Err(status::request_error(&error)),
        };
        if id.uid.is_some() && id.uid != pod.metadata.uid {
            return Err(ExecError::Gone(format!("the pod {id} is gone; another has its name")));
        }
        let status = pod.status.unwrap_or_default();
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return Err(ExecError::Gone(format!("the pod {id} has ended")));
        }
        let containers = status.container_statuses.into_iter().chain(status.init_container_statuses).flatten();
        let state = containers.filter(|status| status.name == container).find_map(|status| status.state);
        // without a status nothing is known, and exec will tell
        match state {
            Some(state) if state.running.is_none() => {
                let why = state.waiting.and_then(|waiting| waiting.reason).unwrap_or_else(|| "it has ended".to_owned());
                Err(ExecError::Unreachable(format!("the container {container} of {id} does not run: {why}")))
            }
            _ => Ok(()),
        }
    }

    async fn exec(&self, command: Command<'_>) -> Result<KubernetesProcess, ExecError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &command.pod.namespace);
        let params = AttachParams {
            container: Some(command.container.to_owned()),
            stdin: command.input,
            max_stdout_buf_size: Some(BUFFER),
            max_stderr_buf_size: Some(BUFFER),
            ..AttachParams::default()
        };
        let asked = Instant::now();
        let attached = pods.exec(&command.pod.name, command.argv, &params).await;
        let mut attached = attached.map_err(|error| status::request_error(&error))?;
        let status = attached.take_status().ok_or_else(|| ExecError::Lost("no status is to be had".to_owned()))?;
        Ok(KubernetesProcess {
            executor: self.clone(),
            pod: command.pod.clone(),
            container: command.container.to_owned(),
            asked,
            attached,
            ending: Ending::Awaited(Box::pin(status)),
        })
    }
}

#[async_trait]
impl Executor for Kubernetes {
    async fn start(&self, command: Command<'_>) -> Result<Box<dyn Process>, ExecError> {
        if command.argv.is_empty() {
            return Err(ExecError::Refused("the command is empty".to_owned()));
        }
        self.find(command.pod, command.container).await?;
        Ok(Box::new(self.exec(command).await?))
    }
}

/// A command in a container.
struct KubernetesProcess {
    executor: Kubernetes,
    pod: PodId,
    container: String,
    /// Before the command can have started.
    asked: Instant,
    attached: AttachedProcess,
    ending: Ending,
}

/// How the command ends: the connection says so once.
enum Ending {
    Awaited(Pin<Box<dyn Future<Output = Option<Status>> + Send + Sync>>),
    Known(Result<Exit, ExecError>),
}

#[async_trait]
impl Process for KubernetesProcess {
    fn input(&mut self) -> Option<Writer> {
        Some(Box::new(self.attached.stdin()?))
    }

    fn outputs(&mut self) -> Option<(Reader, Reader)> {
        Some((Box::new(self.attached.stdout()?), Box::new(self.attached.stderr()?)))
    }

    async fn wait(&mut self) -> Result<Exit, ExecError> {
        if let Ending::Awaited(status) = &mut self.ending {
            let status = status.await;
            self.ending = Ending::Known(status::exit(status));
        }
        match &self.ending {
            Ending::Known(exit) => exit.clone(),
            Ending::Awaited(_) => Err(ExecError::Lost("its status is still awaited".to_owned())),
        }
    }

    async fn end(&mut self) -> Ended {
        end::end(self).await
    }
}
