//! What stops the writers of directories of this host, as flags say it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use stillpoint_agent::volume::{Looks, Settings, Wish};
use stillpoint_api::Method;
use stillpoint_hooks::{
    guard::{self, Release, Stop},
    hook::{
        exec::local::Local,
        model::{Hook, Kind, Source, in_shell},
        plan::{Plan, PodPlan, Step},
        pod::PodId,
        run,
        session::PlannedHooks,
    },
    host::{Error, Host, PodStop},
    session::{Held, HookFailure, Limits, Pod, Stopper},
};
use tokio_util::sync::CancellationToken;

use crate::{
    args::MethodArg,
    meanwhile::{GuardArgs, duration, times},
};

/// A freeze stops nobody's heartbeats but those that write.
const MAX_FROZEN: Duration = Duration::from_secs(10);
/// A pause stops all of them.
const MAX_PAUSED: Duration = Duration::from_secs(1);

/// How writers are stopped; with none of these nothing is, and files are read while they change.
#[derive(Debug, Args)]
#[command(next_help_heading = "Instant")]
pub(super) struct StopArgs {
    /// Freeze the filesystems for a moment, so that all directories are captured at one instant
    #[arg(long)]
    freeze: bool,
    /// A cgroup whose processes are paused for it: name those of every writer; may be given several times
    #[arg(long = "pause-cgroup", value_name = "DIR")]
    pause: Vec<PathBuf>,
    /// A shell command that brings the application to rest before the stop
    #[arg(long, value_name = "COMMAND")]
    hook_pre: Vec<String>,
    /// A shell command that runs after the release in any case
    #[arg(long, value_name = "COMMAND")]
    hook_post: Vec<String>,
    /// A shell command that prints `ready`, holds the application until it reads `release`, and ends
    #[arg(long, value_name = "COMMAND")]
    hook_hold: Vec<String>,
    /// Capture by this method and no other
    #[arg(long, value_enum)]
    method: Option<MethodArg>,
    /// How long writers stand still at most [default: 10s, with a pause 1s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max: Option<Duration>,
    /// How long reading may take while they do; with more to read, directories are read again before
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    budget: Duration,
    /// How many MiB may be read while writers are paused
    #[arg(long, value_name = "MIB", default_value_t = Wish::default().max_paused >> 20)]
    max_paused: u64,
    /// A folder for what exceeds memory, on a filesystem that is not frozen; the one for temporary files if not given
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    #[command(flatten)]
    guard: GuardArgs,
}

/// What is asked to stand still.
pub(super) struct Asked {
    pub(super) pause: Vec<PathBuf>,
    hooks: Vec<Hook>,
    max: Option<Duration>,
}

impl StopArgs {
    /// Whether an instant is asked for at all.
    pub(super) fn any(&self) -> bool {
        self.freeze
            || self.method.is_some()
            || !self.pause.is_empty()
            || !(self.hook_pre.is_empty() && self.hook_post.is_empty() && self.hook_hold.is_empty())
    }

    /// What is wished of the capture, how it goes about, and what stands still for it.
    pub(super) fn read(
        self,
        exclude: Vec<String>,
        cancel: CancellationToken,
    ) -> anyhow::Result<(Wish, Settings, Asked)> {
        let Self { freeze, pause, hook_pre, hook_post, hook_hold, method, max, budget, max_paused, spool, guard } =
            self;
        let pause = pause.iter().map(std::path::absolute).collect::<std::io::Result<Vec<_>>>()?;
        let spool = std::path::absolute(spool.unwrap_or_else(std::env::temp_dir))?;
        let hook = |(number, (kind, script)): (usize, (Kind, String))| {
            let name = if number == 0 { kind.to_string() } else { format!("{kind}.{number}") };
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            Hook { number, ..Hook::new(name, kind, Source::Spec, in_shell(&script, &[])) }
        };
        let kinds = [(Kind::Pre, hook_pre), (Kind::Hold, hook_hold), (Kind::Post, hook_post)];
        let of_kind = |(kind, scripts): (Kind, Vec<String>)| {
            scripts.into_iter().map(move |script| (kind, script)).enumerate().map(hook).collect::<Vec<_>>()
        };
        let hooks = kinds.into_iter().flat_map(of_kind).collect();
        let wish = Wish { method: method.map(Method::from), freeze, max_paused: max_paused << 20 };
        let drain = Stop { protect: vec![spool.clone()], ..times(max.unwrap_or(MAX_FROZEN)) };
        let settings =
            Settings { budget, spool, exclude, guard: guard.config()?, drain, looks: Looks::default(), cancel };
        Ok((wish, settings, Asked { pause, hooks, max }))
    }
}

impl Asked {
    pub(super) fn has_hooks(&self) -> bool {
        self.hooks.iter().any(|hook| hook.kind != Kind::Post)
    }

    /// Hooks, and a stop of everything that the captures need.
    pub(super) fn session(&self, name: &str, stops: Vec<PodStop>, settings: &Settings) -> (Stopping, Hooked) {
        let pod = PodId { namespace: "host".to_owned(), name: name.to_owned(), uid: None };
        let is_paused = stops.iter().any(|stop| !stop.pause.is_empty());
        let max = self.max.unwrap_or(if is_paused { MAX_PAUSED } else { MAX_FROZEN });
        let stops: Vec<_> = stops.into_iter().map(|stop| PodStop { pod: pod.to_string(), ..stop }).collect();
        let needed = stops.iter().any(|stop| !(stop.freeze.is_empty() && stop.pause.is_empty()));
        let common = Stop { protect: settings.drain.protect.clone(), ..times(max) };
        let stopper = if needed {
            Stopping::Guarded(Box::new(Host::new(settings.guard.clone(), common, stops)))
        } else {
            Stopping::Nothing
        };
        let steps = self.hooks.iter().map(|hook| Step { container: String::new(), hook: hook.clone() }).collect();
        let plan = PodPlan { pod, freeze: None, fault: None, ended: false, steps };
        let plan = Plan { pods: if self.hooks.is_empty() { Vec::new() } else { vec![plan] } };
        let limits = run::Limits { window: max + Duration::from_secs(120), ..run::Limits::default() };
        (stopper, PlannedHooks::new(plan, Arc::new(Local::default()), limits))
    }

    pub(super) fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// The hooks of one attempt.
pub(super) type Hooked = PlannedHooks;

/// Stops what has to be stopped, which may be nothing.
pub(super) enum Stopping {
    Guarded(Box<Host>),
    Nothing,
}

/// What stands still.
pub(super) enum Standing {
    Guarded(Box<guard::Held>),
    Nothing,
}

impl Stopper for Stopping {
    type Held = Standing;
    type Error = Error;

    async fn prepare(&mut self) -> Result<(), Error> {
        match self {
            Self::Guarded(host) => host.prepare().await,
            Self::Nothing => Ok(()),
        }
    }

    fn leave_out(&mut self, pod: &Pod) -> bool {
        match self {
            Self::Guarded(host) => host.leave_out(pod),
            // all that there is belongs to the one pod
            Self::Nothing => false,
        }
    }

    async fn sync(&mut self) -> Result<(), Error> {
        match self {
            Self::Guarded(host) => host.sync().await,
            Self::Nothing => Ok(()),
        }
    }

    async fn stop(&mut self) -> Result<Standing, Error> {
        match self {
            Self::Guarded(host) => Ok(Standing::Guarded(Box::new(host.stop().await?))),
            Self::Nothing => Ok(Standing::Nothing),
        }
    }
}

impl Held for Standing {
    async fn lost(&mut self) {
        match self {
            Self::Guarded(held) => held.lost().await,
            Self::Nothing => std::future::pending().await,
        }
    }

    async fn release(self) -> Release {
        match self {
            Self::Guarded(held) => held.release().await,
            Self::Nothing => Release { whole: true, reason: guard::Reason::Asked, window_ms: 0.0, targets: Vec::new() },
        }
    }
}

/// Hooks that failed, on one line.
pub(super) fn failures(failed: &[HookFailure]) -> String {
    failed.iter().map(|failure| failure.what.as_str()).collect::<Vec<_>>().join("; ")
}
