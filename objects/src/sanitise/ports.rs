//! Which addresses and ports of a Service were asked for, and which the captured cluster gave.
//!
//! What a person asked for is restored, what was given is given anew. Two things tell them apart: the text that kubectl
//! kept of what was applied, and, where there is none, the fields that some manager is recorded to have set.

use serde_json::Value;

use super::Mapping;
use crate::value::{at, each, each_mut, remove, text};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub(super) fn service(object: &mut Value, mapping: &Mapping) {
    if text(object, &["spec", "clusterIP"]) != Some("None") {
        remove(object, &["spec"], "clusterIP");
        remove(object, &["spec"], "clusterIPs");
    }
    if mapping.preserve_node_ports {
        return;
    }
    let asked = AskedFor::of(object);
    if !asked.health_port() {
        remove(object, &["spec"], "healthCheckNodePort");
    }
    for port in each_mut(object, &["spec", "ports"]) {
        if !asked.node_port(port) {
            remove(port, &[], "nodePort");
        }
    }
}

/// Whether what was applied to a Service names a port's node port. Managed fields are not asked: they are a record of
/// one cluster and do not survive a restore.
pub(crate) fn asks_for_node_port(service: &Value, port: &Value) -> bool {
    last_applied(service).is_some_and(|applied| applied_node_port(&applied, port))
}

/// Whether what was applied to a Service names its health check's node port.
pub(crate) fn asks_for_health_port(service: &Value) -> bool {
    last_applied(service).is_some_and(|applied| at(&applied, &["spec", "healthCheckNodePort"]).is_some())
}

/// What is known of what was asked for.
enum AskedFor {
    Applied(Value),
    /// The `f:spec` of every manager.
    Managed(Vec<Value>),
}

impl AskedFor {
    fn of(object: &Value) -> Self {
        match last_applied(object) {
            Some(applied) => Self::Applied(applied),
            None => {
                let managers = each(object, &["metadata", "managedFields"]);
                Self::Managed(managers.filter_map(|entry| at(entry, &["fieldsV1", "f:spec"])).cloned().collect())
            }
        }
    }

    fn health_port(&self) -> bool {
        match self {
            Self::Applied(applied) => at(applied, &["spec", "healthCheckNodePort"]).is_some(),
            Self::Managed(specs) => specs.iter().any(|spec| spec.get("f:healthCheckNodePort").is_some()),
        }
    }

    fn node_port(&self, port: &Value) -> bool {
        match self {
            Self::Applied(applied) => applied_node_port(applied, port),
            Self::Managed(specs) => specs.iter().any(|spec| managed_node_port(spec, port)),
        }
    }
}

fn last_applied(object: &Value) -> Option<Value> {
    serde_json::from_str(text(object, &["metadata", "annotations", LAST_APPLIED])?).ok()
}

fn applied_node_port(applied: &Value, port: &Value) -> bool {
    each(applied, &["spec", "ports"])
        .any(|applied| key(applied) == key(port) && applied.get("nodePort").is_some_and(|number| *number != 0))
}

/// Managed fields name a port as `k:{"port":80,"protocol":"TCP"}`.
fn managed_node_port(spec: &Value, port: &Value) -> bool {
    let ports = spec.get("f:ports").and_then(Value::as_object);
    ports.into_iter().flatten().any(|(name, fields)| {
        let named = name.strip_prefix("k:").and_then(|text| serde_json::from_str::<Value>(text).ok());
        fields.get("f:nodePort").is_some() && named.is_some_and(|named| key(&named) == key(port))
    })
}

/// What tells a Service's ports apart.
fn key(port: &Value) -> (Option<i64>, &str) {
    (port.get("port").and_then(Value::as_i64), text(port, &["protocol"]).unwrap_or("TCP"))
}
