//! Hooks as processes of this host.

use std::sync::Arc;

use stillpoint_hooks::hook::{
    exec::local::Local,
    plan::Plan,
    report::Report,
    run::{self, Limits, Running},
};

/// Starts `plan` on this host.
pub(crate) fn start(plan: Plan) -> Running {
    run::start(plan, Arc::new(Local::default()), Limits::default(), None)
}

/// Runs `plan` with nothing in its window.
pub(crate) async fn run(plan: Plan) -> Report {
    let mut running = start(plan);
    running.ready().await;
    running.finish().await
}
