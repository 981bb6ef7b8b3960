//! By which keys the elements of a list are known.
//!
//! A field's name decides, as in Kubernetes' own merging; a list whose elements do not all have a key of their own is
//! compared by position, whatever its name.

use std::collections::BTreeSet;

use serde_json::Value;

/// Lists with keys: the field's name, and the fields that make up an element's key. Where a name has several rows (the
/// ports of a container and of a Service), the first that fits is taken.
const KEYS: &[(&str, &[&str])] = &[
    ("conditions", &["type"]),
    ("containers", &["name"]),
    ("env", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("hostAliases", &["ip"]),
    ("imagePullSecrets", &["name"]),
    ("initContainers", &["name"]),
    ("ownerReferences", &["kind", "name"]),
    ("ports", &["containerPort", "protocol"]),
    ("ports", &["port", "protocol"]),
    ("resourceClaims", &["name"]),
    ("secrets", &["name"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("versions", &["name"]),
    ("volumeClaimTemplates", &["metadata"]),
    ("volumeDevices", &["devicePath"]),
    ("volumeMounts", &["mountPath"]),
    ("volumes", &["name"]),
    ("webhooks", &["name"]),
];

/// Both lists with their elements' keys; none where they have no keys.
#[expect(clippy::type_complexity)]
pub(super) fn of_both<'a>(
    field: &str,
    before: &'a [Value],
    after: &'a [Value],
) -> Option<(Vec<(String, &'a Value)>, Vec<(String, &'a Value)>)> {
    let mut rows = KEYS.iter().filter(|(name, _)| *name == field);
    rows.find_map(|(_, fields)| Some((of(fields, before)?, of(fields, after)?)))
}

fn of<'a>(fields: &[&str], list: &'a [Value]) -> Option<Vec<(String, &'a Value)>> {
    let keyed: Option<Vec<_>> = list.iter().map(|element| Some((key(fields, element)?, element))).collect();
    let keyed = keyed?;
    let distinct: BTreeSet<_> = keyed.iter().map(|(key, _)| key).collect();
    (distinct.len() == keyed.len()).then_some(keyed)
}

/// Such as `name=web` or `port=80,protocol=TCP`. The first field must be there; those after it have defaults.
fn key(fields: &[&str], element: &Value) -> Option<String> {
    element.get(fields.first()?)?;
    let parts = fields.iter().filter_map(|field| {
        // a template for claims is known by its name
        let value = if *field == "metadata" { element.get("metadata")?.get("name")? } else { element.get(field)? };
        let field = if *field == "metadata" { "name" } else { field };
        match value {
            Value::String(text) => Some(format!("{field}={text}")),
            Value::Number(number) => Some(format!("{field}={number}")),
            _ => None,
        }
    });
    let key = parts.collect::<Vec<_>>().join(",");
    (!key.is_empty()).then_some(key)
}
