//! Create, update and delete, each as: read, compute a new value, commit if nothing changed meanwhile, else again.
//!
//! All of it is synchronous and short; only the commit holds the store's lock.

use std::sync::{Arc, MutexGuard, PoisonError};

use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    api::{Api, Target},
    draft::{self, Part},
    refusal::{Refusal, json_response},
    store::{Expect, Found, Guard, Mode, Object, Write, WriteError},
    types::{CRD_TABLE, NAMESPACE_TABLE, ResourceType},
    validate::text,
};

/// How often a write is computed again because another one came first.
const ATTEMPTS: usize = 64;

/// Namespaces that are never deleted.
const KEPT_NAMESPACES: [&str; 3] = ["default", "kube-public", "kube-system"];

/// What a client may ask of a deletion; what is left out here is not judged.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeleteOptions {
    preconditions: Option<Preconditions>,
    dry_run: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("invalid DeleteOptions: {error}")))
    }

    pub(crate) fn mode(&self, of_query: Mode) -> Mode {
        let dry = self.dry_run.as_deref().is_some_and(|values| values.iter().any(|value| value == "All"));
        if dry { Mode::DryRun } else { of_query }
    }
}

/// An object after a write.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) object: Arc<Object>,
    /// 0 for an object that a dry run would have created.
    pub(crate) revision: u64,
}

impl Written {
    pub(crate) fn respond(&self, code: StatusCode, resource: &ResourceType) -> Response {
        if self.revision > 0 {
            let mut json = Vec::with_capacity(self.object.size());
            self.object.write(&mut json, Some(&resource.types), self.revision);
            return json_response(code, json);
        }
        let mut value = self.object.to_value(&resource.types, 0);
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        json_response(code, value.to_string().into_bytes())
    }
}

/// What a deletion left.
#[derive(Debug)]
pub(crate) enum Deleted {
    Gone(Found),
    /// Something holds it still.
    Pending(Written),
}

/// CRD writes go one after the other, so that the registry follows the store in order.
fn lock_if_crd<'a>(api: &'a Api, resource: &ResourceType) -> Option<MutexGuard<'a, ()>> {
    let is_crd = resource.table.as_ref() == CRD_TABLE;
    is_crd.then(|| api.crd_writes.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Creates an object.
pub(crate) fn create(api: &Api, target: &Target, body: Value, mode: Mode) -> Result<Written, Refusal> {
    let resource = &target.resource;
    let _one_at_a_time = lock_if_crd(api, resource);
    let body = draft::accept(resource, body)?;
    let generated = text(&body, "/metadata/name").is_empty();
    for _ in 0..ATTEMPTS {
        let value = draft::prepare_create(resource, &target.namespace, body.clone())?;
        draft::validate_create(resource, &value)?;
        let name = text(&value, "/metadata/name");
        if resource.table.as_ref() == CRD_TABLE {
            check_names_are_free(api, resource, &value)?;
        }
        let object = Arc::new(Object::encode(&value, resource.fields));
        match api.store.commit(creation(target, name, &object), mode) {
            Err(WriteError::Exists) if generated => {}
            Err(error) => return Err(Refusal::from_write(error, resource, name)),
            Ok(revision) => {
                if mode == Mode::Commit {
                    after_commit(api, resource, name);
                    if resource.table.as_ref() == NAMESPACE_TABLE {
                        crate::lifecycle::furnish(api, name);
                    }
                }
                return Ok(Written { object, revision });
            }
        }
    }
    Err(Refusal::already_exists(resource, text(&body, "/metadata/generateName")))
}

fn creation(target: &Target, name: &str, object: &Arc<Object>) -> Write {
    let mut guards = Vec::new();
    if target.resource.is_namespaced() {
        guards.push(Guard { table: NAMESPACE_TABLE.into(), key: target.namespace.clone() });
    }
    if target.resource.is_custom() {
        guards.push(Guard { table: CRD_TABLE.into(), key: target.resource.qualified() });
    }
    Write {
        table: Arc::clone(&target.resource.table),
        key: target.resource.key(&target.namespace, name),
        expect: Expect::Absent,
        next: Some(Arc::clone(object)),
        guards,
    }
}

/// A CRD that takes the names of another type of its group would never be established: it is refused at once.
fn check_names_are_free(api: &Api, resource: &ResourceType, crd: &Value) -> Result<(), Refusal> {
    let (group, kind) = (text(crd, "/spec/group"), text(crd, "/spec/names/kind"));
    let name = text(crd, "/metadata/name");
    let takes = |t: &ResourceType| if t.qualified() == name { !t.is_custom() } else { t.kind() == kind };
    let types = api.registry.types();
    match types.all().find(|t| t.group == group && takes(t)) {
        None => Ok(()),
        Some(other) => {
            let why = format!("its names are already those of {} ({})", other.qualified(), other.kind());
            Err(Refusal::conflict(resource, name, &why))
        }
    }
}

fn after_commit(api: &Api, resource: &ResourceType, name: &str) {
    if resource.table.as_ref() == CRD_TABLE {
        api.registry.refresh(&api.store, name);
    }
    api.lifecycle.notify_one();
}

/// Reads the target or says that it is absent.
pub(crate) fn read(api: &Api, target: &Target) -> Result<Found, Refusal> {
    let key = target.resource.key(&target.namespace, &target.name);
    let found = api.store.get(&target.resource.table, &key);
    found.ok_or_else(|| Refusal::not_found(&target.resource, &target.name))
}

/// Updates the target: `change` makes the new object from the present one, which carries types and resourceVersion.
pub(crate) fn update(
    api: &Api,
    target: &Target,
    part: Part,
    mode: Mode,
    change: impl Fn(&Value) -> Result<Value, Refusal>,
) -> Result<Written, Refusal> {
    let resource = &target.resource;
    let _one_at_a_time = lock_if_crd(api, resource);
    for _ in 0..ATTEMPTS {
        let found = read(api, target)?;
        let old = found.object.to_value(&resource.types, found.revision);
        let new = draft::accept(resource, change(&old)?)?;
        check_identity(target, &found, &old, &new)?;
        let next = draft::prepare_update(resource, part, &old, with_place(target, new)?)?;
        draft::validate_update(resource, &old, &next)?;
        if let Some(written) = replace(api, target, &found, &next, mode)? {
            return Ok(written);
        }
    }
    Err(Refusal::modified(resource, &target.name))
}

fn with_place(target: &Target, mut object: Value) -> Result<Value, Refusal> {
    draft::place(&target.resource, &target.namespace, &mut object)?;
    Ok(object)
}

fn check_identity(target: &Target, found: &Found, old: &Value, new: &Value) -> Result<(), Refusal> {
    let name = text(new, "/metadata/name");
    if name != target.name {
        let url = &target.name;
        let why = format!("the name of the object ({name}) does not match the name on the URL ({url})");
        return Err(Refusal::bad_request(why));
    }
    let (sent, uid) = (text(new, "/metadata/uid"), text(old, "/metadata/uid"));
    if !sent.is_empty() && sent != uid {
        let why = format!("Precondition failed: UID in precondition: {sent}, UID in object meta: {uid}");
        return Err(Refusal::conflict(&target.resource, name, &why));
    }
    let version = text(new, "/metadata/resourceVersion");
    if !version.is_empty() && version != found.revision.to_string() {
        return Err(Refusal::modified(&target.resource, name));
    }
    Ok(())
}

/// Puts `next` in the place of `found`; `None` if another write came first.
fn replace(api: &Api, target: &Target, found: &Found, next: &Value, mode: Mode) -> Result<Option<Written>, Refusal> {
    let resource = &target.resource;
    let object = Arc::new(Object::encode(next, resource.fields));
    if object.same_content(&found.object) {
        return Ok(Some(Written { object, revision: found.revision }));
    }
    let released = object.is_deleting() && !draft::is_held(resource, next);
    let write = Write {
        table: Arc::clone(&resource.table),
        key: found.key.to_string(),
        expect: Expect::Revision(found.revision),
        next: (!released).then(|| Arc::clone(&object)),
        guards: Vec::new(),
    };
    match api.store.commit(write, mode) {
        Ok(revision) => {
            if mode == Mode::Commit {
                after_commit(api, resource, &target.name);
            }
            Ok(Some(Written { object, revision }))
        }
        Err(WriteError::Changed) => Ok(None),
        Err(error) => Err(Refusal::from_write(error, resource, &target.name)),
    }
}

/// Deletes the target, or marks it as being deleted if something holds it.
pub(crate) fn delete(api: &Api, target: &Target, options: &DeleteOptions, mode: Mode) -> Result<Deleted, Refusal> {
    let resource = &target.resource;
    let _one_at_a_time = lock_if_crd(api, resource);
    if resource.table.as_ref() == NAMESPACE_TABLE && KEPT_NAMESPACES.contains(&target.name.as_str()) {
        return Err(Refusal::forbidden(resource, &target.name, "this namespace may not be deleted"));
    }
    for _ in 0..ATTEMPTS {
        let found = read(api, target)?;
        let mut value = found.object.to_value(&resource.types, found.revision);
        check_preconditions(target, options, &found, &value)?;
        if !found.object.is_deleting() {
            draft::mark_deleted(resource, &mut value);
        }
        if let Some(written) = replace(api, target, &found, &value, mode)? {
            let held = draft::is_held(resource, &value);
            return Ok(if held { Deleted::Pending(written) } else { Deleted::Gone(found) });
        }
    }
    Err(Refusal::modified(resource, &target.name))
}

fn check_preconditions(target: &Target, options: &DeleteOptions, found: &Found, value: &Value) -> Result<(), Refusal> {
    let Some(preconditions) = &options.preconditions else { return Ok(()) };
    let revision = found.revision.to_string();
    let pairs = [
        ("UID", &preconditions.uid, text(value, "/metadata/uid")),
        ("ResourceVersion", &preconditions.resource_version, revision.as_str()),
    ];
    for (what, wanted, present) in pairs {
        if wanted.as_deref().is_some_and(|wanted| wanted != present) {
            let wanted = wanted.as_deref().unwrap_or_default();
            let why =
                format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {present}");
            return Err(Refusal::conflict(&target.resource, &target.name, &why));
        }
    }
    Ok(())
}
