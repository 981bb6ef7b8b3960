//! `stillpoint hooks run`.

use std::{fmt::Write, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Pod;
use stillpoint_hooks::hook::{
    duration,
    exec::kubernetes::Kubernetes,
    model::{Hook, Kind, OnError},
    plan::{self, Phase, Plan},
    pod,
    report::{HookResult, Outcome, Report},
    run::{self, Limits},
};
use tokio::time;

use crate::{args::OutputArgs, cluster::ClusterArgs, exit::Exit, interrupt, output};

pub(super) const AFTER_HELP: &str = "Ctrl-C closes the window: posts run in any case.\n\
    Exit codes: 0 all hooks succeeded, 1 a pod would not be snapshotted or a post failed, 3 another hook failed.\n\
    Examples:\n  stillpoint hooks run -n shop -l app=db --dry-run\n  \
    stillpoint hooks run -n shop -l app=db --phase both --window 5s";

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The namespace of the pods
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Which pods, by their labels [default: all]
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Print what would run, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Which hooks to run; holds need both
    #[arg(long, value_enum, default_value_t)]
    phase: PhaseArg,
    /// How long to wait between the pre hooks and the posts
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = super::duration)]
    window: Duration,
    /// How long a post that fails is tried again
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = super::duration)]
    post_deadline: Duration,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum PhaseArg {
    /// Pre hooks.
    Pre,
    /// Post hooks.
    Post,
    /// Pre hooks and holds, the window, post hooks.
    #[default]
    Both,
}

impl From<PhaseArg> for Phase {
    fn from(phase: PhaseArg) -> Self {
        match phase {
            PhaseArg::Pre => Self::Pre,
            PhaseArg::Post => Self::Post,
            PhaseArg::Both => Self::Both,
        }
    }
}

pub(super) async fn run(args: RunArgs) -> anyhow::Result<Exit> {
    let RunArgs { namespace, selector, dry_run, phase, window, post_deadline, cluster, output } = args;
    let client = cluster.connect_for_streams().await?.client;
    let pods: Vec<Pod> = super::list(&client, Some(&namespace), selector.as_deref()).await?;
    if pods.is_empty() {
        let which = selector.map(|selector| format!(" that matches {selector}")).unwrap_or_default();
        anyhow::bail!("there is no pod in the namespace {namespace}{which}");
    }
    let pods: Vec<_> = pods.iter().map(pod::Pod::of).collect();
    let plan = plan::plan(&pods, &[], phase.into());
    if dry_run {
        output::print(output.output, &plan, || plan_text(&plan))?;
        let refused = plan.pods.iter().any(|pod| pod.fault.is_some());
        return Ok(if refused { Exit::Failed } else { Exit::Done });
    }
    let limits = Limits { window: window + Duration::from_secs(1), post: post_deadline };
    let mut running = run::start(plan, Arc::new(Kubernetes::new(client)), limits);
    tokio::select! {
        ready = running.ready() => if ready.failed() == 0 {
            tokio::select! {
                () = time::sleep(window) => {}
                _ = running.broke() => {}
                asked = interrupt::asked_to_end() => asked?,
            }
        },
        asked = interrupt::asked_to_end() => asked?,
    }
    let report = running.finish().await;
    output::print(output.output, &report, || report_text(&report))?;
    Ok(exit(&report))
}

fn exit(report: &Report) -> Exit {
    let post_failed = report.results.iter().any(|result| result.kind == Kind::Post && result.outcome.failed());
    if post_failed || !report.ruled_out().is_empty() {
        Exit::Failed
    } else if report.failed() > 0 {
        Exit::Degraded
    } else {
        Exit::Done
    }
}

fn plan_text(plan: &Plan) -> String {
    if plan.pods.is_empty() {
        return "no hooks: nothing would run\n".to_owned();
    }
    let mut text = String::new();
    for pod in plan.pods.iter().filter(|pod| pod.ended) {
        let _ = writeln!(text, "{}: has ended; its hooks are skipped", pod.pod);
    }
    for pod in &plan.pods {
        if let Some(fault) = &pod.fault {
            let _ = writeln!(text, "{}: refused: {fault}", pod.pod);
        }
    }
    let rows = |post: bool| {
        let steps = plan.pods.iter().filter(|pod| !pod.ended);
        let mut steps: Vec<_> = steps.flat_map(|pod| pod.steps.iter().map(move |step| (pod, step))).collect();
        steps.retain(|(_, step)| (step.hook.kind == Kind::Post) == post);
        steps.sort_by_key(|(_, step)| step.hook.order);
        if post {
            steps.reverse();
        }
        steps.into_iter().map(|(pod, step)| {
            let Hook { name, order, timeout, on_error, command, .. } = &step.hook;
            let on_error = match on_error {
                OnError::Fail => "Fail",
                OnError::Continue => "Continue",
            };
            [
                order.to_string(),
                format!("{}/{}", pod.pod, step.container),
                name.clone(),
                duration::format(*timeout),
                on_error.to_owned(),
                one_line(command),
            ]
        })
    };
    let header = ["ORDER", "CONTAINER", "HOOK", "TIMEOUT", "ON-ERROR", "COMMAND"];
    let all: Vec<_> = rows(false).chain(rows(true)).collect();
    if !all.is_empty() {
        text += &output::table(header, all);
    }
    text + "nothing was run\n"
}

/// A command as one line that tells its arguments apart.
fn one_line(command: &[String]) -> String {
    let words = command.iter().map(|word| match word.contains(|c: char| c.is_whitespace()) || word.is_empty() {
        true => format!("{word:?}"),
        false => word.clone(),
    });
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn report_text(report: &Report) -> String {
    let mut text = String::new();
    for refused in &report.refused {
        let _ = writeln!(text, "{}: refused: {}", refused.pod, output::printable(&refused.why));
    }
    for result in &report.results {
        let HookResult { pod, container, hook, outcome, attempts, seconds, stdout, stderr, .. } = result;
        let tries = if *attempts > 1 { format!(", {attempts} tries") } else { String::new() };
        let line = format!("{pod}/{container}: {hook}: {outcome} ({seconds:.1} s{tries})");
        let _ = writeln!(text, "{}", output::printable(&line));
        let shown = [stdout, stderr].map(|output| output.text.trim_end());
        for line in shown.into_iter().filter(|_| *outcome != Outcome::Succeeded).flat_map(str::lines) {
            let _ = writeln!(text, "    {}", output::printable(line));
        }
    }
    let ruled_out = report.ruled_out();
    if !ruled_out.is_empty() {
        let names: Vec<_> = ruled_out.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "a backup would not snapshot the volumes of {}", names.join(", "));
    }
    text + &format!(
        "{} started, {} failed\n",
        output::counted(report.attempted() as u64, "hook"),
        output::count(report.failed() as u64)
    )
}
