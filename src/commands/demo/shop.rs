//! The demo's shop: its objects, and a writer that changes two of them in pairs.
//!
//! The objects stand in a file of their own, because a reader knows manifests better than code that makes them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use stillpoint_api::ResourceType;
use stillpoint_objects::{
    discovery::{self, Discovery},
    retry::Retry,
    write::{self, DryRun},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const OBJECTS: &str = include_str!("shop.yaml");
/// Orders beside those of the file, so that the shop has had customers.
const ORDERS: usize = 250;

/// Creates the shop; the number of its objects.
pub(super) async fn open(client: &Client) -> anyhow::Result<usize> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(OBJECTS).context("the demo's shop is no YAML")?;
    objects.extend((1..=ORDERS).map(order));
    let retry = Retry::default();
    let mut discovery = discovery::discover(client, &retry).await?;
    let mut uids = BTreeMap::new();
    for object in &mut objects {
        name_owners(object, &uids);
        let resource = match type_of(&discovery, object) {
            Some(resource) => resource,
            None => {
                discovery = discovery::discover(client, &retry).await?;
                type_of(&discovery, object).with_context(|| format!("nobody serves {}", object["kind"]))?
            }
        };
        match write::create(client, &resource, object, DryRun::No, &retry).await? {
            write::Created::New(created) => uids.insert(key(object), created["metadata"]["uid"].clone()),
            write::Created::Exists(_) => bail!("the new cluster has a {} already", key(object)),
        };
    }
    Ok(objects.len())
}

fn order(number: usize) -> Value {
    json!({
        "apiVersion": "shop.example.com/v1", "kind": "Order",
        "metadata": {"name": format!("order-{number:05}"), "namespace": "shop", "labels": {"state": "paid"}},
        "spec": {"customer": format!("customer-{:03}", number * 37 % 211), "total": format!("{}.99", number % 90 + 9)},
    })
}

fn key(object: &Value) -> String {
    format!(
        "{} {}",
        object["kind"].as_str().unwrap_or_default(),
        object["metadata"]["name"].as_str().unwrap_or_default()
    )
}

fn name_owners(object: &mut Value, uids: &BTreeMap<String, Value>) {
    for reference in object["metadata"].get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten() {
        let owner = format!(
            "{} {}",
            reference["kind"].as_str().unwrap_or_default(),
            reference["name"].as_str().unwrap_or_default()
        );
        reference["uid"] = uids.get(&owner).cloned().unwrap_or_default();
    }
}

fn type_of(discovery: &Discovery, object: &Value) -> Option<ResourceType> {
    let of =
        |resource: &&ResourceType| object["kind"] == resource.kind && object["apiVersion"] == resource.api_version();
    discovery.types.iter().map(|served| &served.resource).find(of).cloned()
}

/// One pair of changes: first the stock, then the ledger.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) sequence: u64,
    pub(super) stock_revision: u64,
    pub(super) ledger_revision: u64,
}

/// A writer that changes the stock and then the ledger, over and over, and logs what the server accepted.
pub(super) struct Writer {
    task: JoinHandle<anyhow::Result<Vec<Pair>>>,
    cancel: CancellationToken,
}

impl Writer {
    pub(super) fn start(client: Client) -> Self {
        let cancel = CancellationToken::new();
        Self { task: tokio::spawn(write_pairs(client, cancel.clone())), cancel }
    }

    /// Ends it; every pair it wrote.
    pub(super) async fn stop(self) -> anyhow::Result<Vec<Pair>> {
        self.cancel.cancel();
        self.task.await.context("the demo's writer ended without an answer")?
    }
}

async fn write_pairs(client: Client, cancel: CancellationToken) -> anyhow::Result<Vec<Pair>> {
    let (stock, ledger) = (stock(&client), ledger(&client));
    let mut pairs = Vec::new();
    for sequence in 1.. {
        if cancel.is_cancelled() {
            break;
        }
        let stock_revision = set(&stock, "stock", &json!({"data": {"sequence": sequence.to_string()}})).await?;
        let ledger_revision = set(&ledger, "ledger", &json!({"spec": {"sequence": sequence.to_string()}})).await?;
        pairs.push(Pair { sequence, stock_revision, ledger_revision });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(pairs)
}

async fn set(api: &Api<DynamicObject>, name: &str, change: &Value) -> anyhow::Result<u64> {
    let changed = api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    changed.metadata.resource_version.unwrap_or_default().parse().context("the server's revision is no number")
}

/// The sequence numbers that two lists see when they are made one after the other, as backups usually are made.
pub(super) async fn naive(client: &Client, pause: Duration) -> anyhow::Result<(u64, u64)> {
    let stock = stock(client).get("stock").await?;
    // what a backup reads between two types of its list
    tokio::time::sleep(pause).await;
    let ledger = ledger(client).get("ledger").await?;
    Ok((sequence(&stock.data, "data")?, sequence(&ledger.data, "spec")?))
}

/// The sequence number that an object carries in one of its fields.
pub(super) fn sequence(object: &Value, field: &str) -> anyhow::Result<u64> {
    object[field]["sequence"].as_str().unwrap_or_default().parse().context("the object carries no sequence number")
}

fn stock(client: &Client) -> Api<DynamicObject> {
    dynamic(client, "", "v1", "ConfigMap", "configmaps")
}

fn ledger(client: &Client) -> Api<DynamicObject> {
    dynamic(client, "shop.example.com", "v1", "Order", "orders")
}

fn dynamic(client: &Client, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::namespaced_with(client.clone(), "shop", &resource)
}
