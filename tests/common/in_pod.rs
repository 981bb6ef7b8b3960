//! Processes of a test in the cgroup of a pod: they stand still as a container's would.
//!
//! What they run is this machine's, where a container's image has next to nothing.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use stillpoint_hooks::pods;

use super::cluster::{Real, get};

/// Processes in the cgroup of a pod, killed at the end.
pub(crate) struct InPod {
    cgroups: Vec<PathBuf>,
    children: Vec<Child>,
}

impl Drop for InPod {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl InPod {
    pub(crate) async fn new(real: &Real, pod: &str) -> Self {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}", real.namespace);
        let uid = get(&real.client, &path).await["metadata"]["uid"].as_str().unwrap().to_owned();
        Self { cgroups: pods::cgroups(Path::new("/sys/fs/cgroup"), &uid).unwrap(), children: Vec::new() }
    }

    /// A command whose processes are in the pod's cgroups.
    pub(crate) fn command(&self, program: &[&str]) -> Command {
        let enter: String =
            self.cgroups.iter().map(|own| format!("echo $$ >{}/cgroup.procs; ", own.display())).collect();
        let mut command = Command::new("sh");
        command.args(["-ec", &format!("{enter}exec \"$@\""), "sh"]).args(program).stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&mut self, command: &mut Command) -> &mut Child {
        self.children.push(command.spawn().unwrap());
        self.children.last_mut().unwrap()
    }
}
