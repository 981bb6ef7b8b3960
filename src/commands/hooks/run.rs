//! `stillpoint hooks run`.

use std::{fmt::Write, path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use stillpoint_hooks::hook::{
    duration,
    exec::{Executor, kubernetes::Kubernetes},
    model::{Hook, Kind, OnError},
    plan::{self, Phase, Plan},
    pod,
    report::{HookResult, Outcome, Report},
    run::{self, Limits, Settled},
};
use tokio::time;

use crate::{args::OutputArgs, cluster::ClusterArgs, exit::Exit, interrupt, output};

pub(super) const AFTER_HELP: &str = "Ctrl-C closes the window: posts run in any case. Those of a run that was killed are \
    run first, by the next one.\n\
    Exit codes: 0 all hooks succeeded, 1 a pod would not be snapshotted or a post failed, 3 another hook failed.\n\
    Examples:\n  stillpoint hooks run -n shop -l app=db --dry-run\n  \
    stillpoint hooks run -n shop -l app=db --phase both --window 5s\n  \
    stillpoint hooks run --owed";

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
    /// Run only the posts that are owed, because the run that started their pre hooks was killed
    #[arg(long, conflicts_with_all = ["namespace", "selector", "dry_run", "phase", "window"])]
    owed: bool,
    /// The folder that remembers which posts are owed [default: stillpoint/hooks in the user's folder for state]
    #[arg(long, env = "STILLPOINT_HOOK_JOURNAL", value_name = "DIR")]
    journal: Option<PathBuf>,
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
    let RunArgs { namespace, selector, dry_run, owed, journal, phase, window, post_deadline, cluster, output } = args;
    let target = cluster.connect_for_streams().await?;
    let client = target.client;
    let limits = Limits { window: window + Duration::from_secs(1), post: post_deadline };
    let journal = super::journal(journal, target.name)?;
    let executor: Arc<dyn Executor> = Arc::new(Kubernetes::new(client.clone()));
    if owed {
        let settled = run::owed(&journal, executor, limits).await?;
        let answer = Answer::new(&settled, Report::default());
        output::print(output.output, &answer, || answer.text())?;
        return Ok(answer.exit());
    }
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
    let settled = run::owed(&journal, Arc::clone(&executor), limits).await?;
    let mut running = run::start(plan, executor, limits, Some(journal));
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
    let answer = Answer::new(&settled, running.finish().await);
    output::print(output.output, &answer, || answer.text())?;
    Ok(answer.exit())
}

/// What was done.
#[derive(Debug, Serialize)]
struct Answer {
    /// The posts that a killed run owed.
    owed: Vec<HookResult>,
    /// What may be owed besides, and cannot be read.
    unreadable: Vec<String>,
    #[serde(flatten)]
    report: Report,
}

impl Answer {
    fn new(settled: &Settled, report: Report) -> Self {
        let unreadable = settled.unreadable.iter().map(ToString::to_string).collect();
        Self { owed: settled.report.results.clone(), unreadable, report }
    }

    fn exit(&self) -> Exit {
        let Self { owed, unreadable, report } = self;
        let mut posts = report.results.iter().chain(owed).filter(|result| result.kind == Kind::Post);
        if posts.any(|post| post.outcome.failed()) || !unreadable.is_empty() || !report.ruled_out().is_empty() {
            Exit::Failed
        } else if report.failed() > 0 {
            Exit::Degraded
        } else {
            Exit::Done
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for why in &self.unreadable {
            let _ = writeln!(text, "what is owed besides cannot be told: {}", output::printable(why));
        }
        if !self.owed.is_empty() {
            text += "owed by a run that was killed:\n";
            results_text(&mut text, &self.owed);
        }
        text + &report_text(&self.report)
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
    results_text(&mut text, &report.results);
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

fn results_text(text: &mut String, results: &[HookResult]) {
    for result in results {
        let HookResult { pod, container, hook, outcome, attempts, seconds, stdout, stderr, .. } = result;
        let tries = if *attempts > 1 { format!(", {attempts} tries") } else { String::new() };
        let line = format!("{pod}/{container}: {hook}: {outcome} ({seconds:.1} s{tries})");
        let _ = writeln!(text, "{}", output::printable(&line));
        let shown = [stdout, stderr].map(|output| output.text.trim_end());
        for line in shown.into_iter().filter(|_| *outcome != Outcome::Succeeded).flat_map(str::lines) {
            let _ = writeln!(text, "    {}", output::printable(line));
        }
    }
}
