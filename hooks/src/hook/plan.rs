//! Which hooks run in which container, in which order: a value to be shown before anything runs.
//!
//! What can be known to fail is known here: a pod whose hooks cannot be believed has a fault and no steps.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    annotations::{self, Declared},
    model::{Hook, Kind},
    pod::{Pod, PodId, State},
};

/// Which hooks are to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Pre hooks only. Holds need the window, so they are left out.
    Pre,
    /// Post hooks only.
    Post,
    /// Everything.
    Both,
}

impl Phase {
    fn has(self, kind: Kind) -> bool {
        match self {
            Self::Pre => kind == Kind::Pre,
            Self::Post => kind == Kind::Post,
            Self::Both => true,
        }
    }
}

/// A hook and the container that it runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The container's name.
    pub container: String,
    /// What runs in it.
    pub hook: Hook,
}

/// Why no hook of a pod can run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An annotation that cannot be understood.
    #[error(transparent)]
    Annotation(#[from] annotations::Problem),
    /// A hook for a container that does not exist, or runs only at the start.
    #[error("the hook {hook} is for the container {container:?}; the pod has {there}")]
    NoContainer {
        /// The hook's name.
        hook: String,
        /// The container that is missing.
        container: String,
        /// Those that there are.
        there: String,
    },
    /// The pod does not run.
    #[error("the pod is {0}: no hook can run in it")]
    NotRunning(String),
}

/// The hooks of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodPlan {
    /// Which pod.
    pub pod: PodId,
    /// Whether its volumes are to be frozen, where its annotations say.
    pub freeze: Option<bool>,
    /// Why none of its hooks can run.
    #[serde(serialize_with = "as_text", skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Whether its containers have ended, so that no hook is needed.
    pub ended: bool,
    /// Its hooks in the order in which they start; posts run from the end.
    pub steps: Vec<Step>,
}

/// The hooks of all pods.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// One entry for each pod that has hooks, or a fault.
    pub pods: Vec<PodPlan>,
}

fn as_text<T: ToString, S: serde::Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&value.as_ref().map(ToString::to_string).unwrap_or_default())
}

/// Plans the hooks of `pods`: those of their annotations, and those of `spec` for each kind that a pod's annotations
/// do not have.
#[must_use]
pub fn plan(pods: &[Pod], spec: &[Hook], phase: Phase) -> Plan {
    let plans = pods.iter().map(|pod| of_pod(pod, spec, phase));
    Plan { pods: plans.filter(|plan| !plan.steps.is_empty() || plan.fault.is_some()).collect() }
}

fn of_pod(pod: &Pod, spec: &[Hook], phase: Phase) -> PodPlan {
    let mut declared = annotations::read(&pod.annotations);
    let kinds: BTreeSet<Kind> = declared.hooks.iter().map(|hook| hook.kind).collect();
    declared.hooks.extend(spec.iter().filter(|hook| !kinds.contains(&hook.kind)).cloned());
    declared.hooks.retain(|hook| phase.has(hook.kind));
    let plan = PodPlan {
        pod: pod.id.clone(),
        freeze: declared.freeze,
        fault: None,
        ended: pod.state == State::Ended,
        steps: Vec::new(),
    };
    match steps(pod, declared) {
        Ok(steps) => PodPlan { steps, ..plan },
        Err(fault) => PodPlan { fault: Some(fault), ..plan },
    }
}

fn steps(pod: &Pod, declared: Declared) -> Result<Vec<Step>, Fault> {
    if let Some(mistake) = declared.mistake() {
        return Err(mistake.clone().into());
    }
    if declared.hooks.is_empty() {
        return Ok(Vec::new());
    }
    if let State::Other(phase) = &pod.state {
        return Err(Fault::NotRunning(phase.clone()));
    }
    let mut steps = Vec::new();
    for hook in declared.hooks {
        let container = container(pod, &hook)?;
        steps.push(Step { container, hook });
    }
    steps.sort_by_key(|step| (step.hook.order, step.hook.kind, step.hook.number));
    Ok(steps)
}

/// The container that `hook` runs in.
///
/// # Errors
/// [`Fault::NoContainer`] when the pod has none of that name.
pub(super) fn container(pod: &Pod, hook: &Hook) -> Result<String, Fault> {
    let found = match &hook.container {
        Some(name) => pod.container(name),
        None => pod.containers.first(),
    };
    found.map(|container| container.name.clone()).ok_or_else(|| {
        let names: Vec<_> = pod.containers.iter().map(|container| container.name.as_str()).collect();
        Fault::NoContainer {
            hook: hook.name.clone(),
            container: hook.container.clone().unwrap_or_default(),
            there: if names.is_empty() { "none".to_owned() } else { names.join(", ") },
        }
    })
}

impl PodPlan {
    /// The steps of one order group, in the order in which they start.
    pub fn steps_of(&self, group: i32) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.hook.order == group)
    }
}

impl Plan {
    /// How many hooks there are.
    #[must_use]
    pub fn hooks(&self) -> usize {
        self.pods.iter().map(|pod| pod.steps.len()).sum()
    }

    /// The order groups, the first to start first.
    #[must_use]
    pub fn groups(&self) -> Vec<i32> {
        let orders = self.pods.iter().flat_map(|pod| &pod.steps).map(|step| step.hook.order);
        orders.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::{annotations::annotations, model::Source, pod::Container};

    fn pod<const N: usize>(pairs: [(&str, &str); N]) -> Pod {
        Pod {
            id: PodId { namespace: "shop".into(), name: "db-0".into(), uid: Some("u".into()) },
            state: State::Running,
            containers: ["db", "proxy"].map(|name| Container { name: name.into(), patience: None }).into(),
            annotations: annotations(pairs),
        }
    }

    fn one(pod: Pod, phase: Phase) -> PodPlan {
        plan(&[pod], &[], phase).pods.remove(0)
    }

    fn names(plan: &PodPlan) -> Vec<&str> {
        plan.steps.iter().map(|step| &*step.hook.name).collect()
    }

    #[test]
    fn steps_stand_in_the_order_of_group_kind_and_number() {
        let pod = pod([
            ("hooks.stillpoint.dev/pre.10.command", "/x"),
            ("hooks.stillpoint.dev/pre.9.command", "/x"),
            ("hooks.stillpoint.dev/hold.command", "/x"),
            ("hooks.stillpoint.dev/post.command", "/x"),
            ("hooks.stillpoint.dev/pre.command", "/x"),
            ("hooks.stillpoint.dev/pre.1.command", "/x"),
            ("hooks.stillpoint.dev/pre.1.order", "-1"),
        ]);
        assert_eq!(names(&one(pod.clone(), Phase::Both)), ["pre.1", "pre", "pre.9", "pre.10", "hold", "post"]);
        assert_eq!(plan(std::slice::from_ref(&pod), &[], Phase::Both).groups(), [-1, 0]);
        assert_eq!(names(&one(pod.clone(), Phase::Post)), ["post"]);
        assert_eq!(names(&one(pod, Phase::Pre)), ["pre.1", "pre", "pre.9", "pre.10"]);
    }

    #[test]
    fn the_container_is_the_first_unless_named_and_must_exist() {
        let command = ("pre.hook.backup.velero.io/command", "/x");
        let container = |pairs| one(pair_pod(command, pairs), Phase::Both);
        assert_eq!(container("proxy").steps[0].container, "proxy");
        let fault = container("nginx").fault.unwrap().to_string();
        assert_eq!(fault, "the hook pre is for the container \"nginx\"; the pod has db, proxy");
        assert_eq!(one(pod([command]), Phase::Both).steps[0].container, "db");
    }

    fn pair_pod(command: (&str, &str), container: &str) -> Pod {
        pod([command, ("pre.hook.backup.velero.io/container", container)])
    }

    #[test]
    fn a_mistake_leaves_no_step_of_the_pod() {
        let plan = one(
            pod([("hooks.stillpoint.dev/pre.command", "/x"), ("hooks.stillpoint.dev/pots.command", "/y")]),
            Phase::Both,
        );
        assert!(plan.steps.is_empty() && matches!(plan.fault, Some(Fault::Annotation(_))));
    }

    #[test]
    fn a_pod_that_does_not_run_has_a_fault_and_one_that_ended_has_none() {
        let mut pending = pod([("pre.hook.backup.velero.io/command", "/x")]);
        pending.state = State::Other("Pending".into());
        assert_eq!(one(pending.clone(), Phase::Both).fault, Some(Fault::NotRunning("Pending".into())));
        pending.state = State::Ended;
        assert!(one(pending, Phase::Both).ended);
    }

    #[test]
    fn annotations_win_over_the_spec_for_each_kind() {
        let spec = [Kind::Pre, Kind::Post].map(|kind| Hook::new("spec", kind, Source::Spec, vec!["/s".into()]));
        let planned = plan(&[pod([("pre.hook.backup.velero.io/command", "/x")])], &spec, Phase::Both);
        assert_eq!(names(&planned.pods[0]), ["pre", "spec"]);
        assert_eq!(planned.pods[0].steps[1].hook.kind, Kind::Post);
    }

    #[test]
    fn a_pod_without_hooks_is_not_in_the_plan() {
        assert_eq!(plan(&[pod([])], &[], Phase::Both), Plan::default());
    }
}
