//! `stillpoint hooks`: looks at the hooks of pods, and runs them.
//!
//! Both work from what is written in pods alone, so that they can be tried before there is any backup.

mod lint;
mod run;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Subcommand;
use etcetera::BaseStrategy;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use stillpoint_hooks::hook::{duration, journal::Journal};

use crate::exit::Exit;

#[derive(Debug, Subcommand)]
pub(crate) enum HooksCommand {
    /// Looks for mistakes in the hooks of pods, before a backup meets them.
    #[command(after_help = lint::AFTER_HELP)]
    Lint(lint::LintArgs),
    /// Runs the hooks of pods as a backup would, or shows what would run.
    #[command(after_help = run::AFTER_HELP)]
    Run(run::RunArgs),
}

pub(crate) async fn run(command: HooksCommand) -> anyhow::Result<Exit> {
    match command {
        HooksCommand::Lint(args) => lint::run(args).await,
        HooksCommand::Run(args) => run::run(args).await,
    }
}

/// How many objects a page of a list has.
const PAGE: u32 = 500;

/// A duration as hooks spell it.
fn duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| error.to_string())
}

/// All objects of a type in `namespace`, or in all, whose labels `selector` matches.
async fn list<K>(client: &Client, namespace: Option<&str>, selector: Option<&str>) -> anyhow::Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let label_selector = selector.map(str::to_owned);
    let mut page = ListParams { limit: Some(PAGE), label_selector, ..ListParams::default() };
    let mut items = Vec::new();
    loop {
        let list = api.list(&page).await.with_context(|| format!("cannot list {}", K::plural(&())))?;
        items.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => return Ok(items),
        }
    }
}

/// Where owed posts of hooks in a cluster are written down: in a folder, or in the user's folder for state.
pub(crate) fn journal(folder: Option<PathBuf>, cluster: String) -> anyhow::Result<Journal> {
    let usual = || {
        let base =
            etcetera::choose_base_strategy().context("cannot tell the user's folder for state: give --hook-journal")?;
        Ok(base.state_dir().unwrap_or_else(|| base.data_dir()).join("stillpoint/hooks"))
    };
    Ok(Journal::new(folder.map_or_else(usual, anyhow::Ok)?, cluster))
}
