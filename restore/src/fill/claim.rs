//! A claim that waits for its data, and the marks that say so.
//!
//! The marks are annotations of the claim, because it outlives this program and everybody sees it: one that is set when
//! the claim is created and one that takes its place once it is filled.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use stillpoint_api::{Digest, ObjectRef};
use stillpoint_objects::helper::words;

use crate::{Error, plan::PlannedVolume};

/// The root of the backup that a claim is to be filled from.
const FILLING: &str = "stillpoint.dev/filling-from";
/// The root of the backup that a claim was filled from.
const FILLED: &str = "stillpoint.dev/filled-from";

/// A claim of the plan that is there.
#[derive(Debug)]
pub(crate) struct Unfilled {
    pub(crate) claim: ObjectRef,
    pub(crate) volume: String,
    pub(crate) bytes: u64,
    /// An object of its owners alone, which it gets last.
    pub(crate) owners: Value,
    existed: Option<Marks>,
}

/// What an existing claim says of itself.
#[derive(Debug)]
struct Marks {
    filling: Option<String>,
    filled: Option<String>,
}

/// What becomes of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fill,
    Filled,
    /// It is not ours to fill.
    Leave(&'static str),
}

impl Unfilled {
    /// Marks a claim that is to be created, and takes its owners from it.
    pub(crate) fn new(planned: &PlannedVolume, claim: &mut Value, root: Digest) -> Self {
        let mut owners = None;
        if let Some(metadata) = claim.get_mut("metadata").and_then(Value::as_object_mut) {
            owners = metadata.remove("ownerReferences");
            let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
            // what is no object is the server's to refuse
            if let Some(annotations) = annotations.as_object_mut() {
                annotations.insert(FILLING.to_owned(), root.to_string().into());
            }
        }
        let owners = owners.map_or_else(|| json!({}), |owners| json!({"metadata": {"ownerReferences": owners}}));
        let PlannedVolume { volume, claim, bytes, .. } = planned;
        Self { claim: claim.clone(), volume: volume.clone(), bytes: *bytes, owners, existed: None }
    }

    /// It was not created: `found` was there.
    pub(crate) fn existed(&mut self, found: &Value) {
        let mark = |name: &str| found["metadata"]["annotations"][name].as_str().map(str::to_owned);
        self.existed = Some(Marks { filling: mark(FILLING), filled: mark(FILLED) });
    }

    /// Whether this restore, or an earlier one of the same backup, made it.
    pub(crate) fn is_ours(&self, root: Digest) -> bool {
        let is = |mark: &Option<String>| mark.as_ref().is_some_and(|of| *of == root.to_string());
        self.existed.as_ref().is_none_or(|Marks { filling, filled }| is(filling) || is(filled))
    }

    pub(super) fn judge(&self, root: Digest, into_existing: bool) -> Verdict {
        match &self.existed {
            Some(Marks { filled: Some(of), .. }) if *of == root.to_string() => Verdict::Filled,
            _ if self.is_ours(root) || into_existing => Verdict::Fill,
            _ => Verdict::Leave("it existed, and was kept as it is: --into-existing fills it if it is empty"),
        }
    }

    /// Notes that it is filled.
    pub(super) async fn done(&self, client: &Client, root: Digest) -> Result<(), Error> {
        let marks = json!({"metadata": {"annotations": {FILLING: null, FILLED: root.to_string()}}});
        self.patch(client, &marks).await
    }

    /// Gives it the owners that are left of those it had.
    pub(crate) async fn give_owners(&self, client: &Client) -> Result<(), Error> {
        match self.owners["metadata"]["ownerReferences"].as_array() {
            Some(owners) if !owners.is_empty() => self.patch(client, &self.owners).await,
            _ => Ok(()),
        }
    }

    async fn patch(&self, client: &Client, change: &Value) -> Result<(), Error> {
        let namespace = self.claim.namespace.as_deref().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        let patched = claims.patch(&self.claim.name, &PatchParams::default(), &Patch::Merge(change)).await;
        patched
            .map(drop)
            .map_err(|error| Error::ClaimNotChanged { claim: self.claim.clone(), reason: words(&error).into() })
    }
}

/// A claim without what is no difference between what was captured and what is there: the marks, and its new volume.
pub(crate) fn comparable(mut object: Value) -> Value {
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("volumeName");
    }
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return object };
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| name != FILLING && name != FILLED);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Digest = Digest([1; 32]);

    fn claim() -> Value {
        json!({"metadata": {"name": "data"}})
    }

    fn unfilled(object: &mut Value) -> Unfilled {
        let claim = "persistentvolumeclaims.core/shop/data".parse().unwrap();
        Unfilled::new(&PlannedVolume { volume: "shop/data".into(), claim, files: 1, bytes: 1 }, object, ROOT)
    }

    fn found(claim: &Value) -> Unfilled {
        let mut unfilled = unfilled(&mut self::claim());
        unfilled.existed(claim);
        unfilled
    }

    #[test]
    fn only_a_claim_of_ours_is_filled_unless_others_are_asked_for() {
        let mut marked = claim();
        assert_eq!(unfilled(&mut marked).judge(ROOT, false), Verdict::Fill);
        assert_eq!(found(&marked).judge(ROOT, false), Verdict::Fill, "an interrupted restore goes on");
        assert!(matches!(found(&marked).judge(Digest([2; 32]), false), Verdict::Leave(_)));
        assert!(matches!(found(&claim()).judge(ROOT, false), Verdict::Leave(_)));
        assert_eq!(found(&claim()).judge(ROOT, true), Verdict::Fill);
        let filled = json!({"metadata": {"annotations": {FILLED: ROOT.to_string()}}});
        assert_eq!(found(&filled).judge(ROOT, true), Verdict::Filled);
    }

    #[test]
    fn the_marks_are_no_difference() {
        let mut marked = claim();
        unfilled(&mut marked);
        assert_ne!(marked, claim());
        assert_eq!(comparable(marked), claim());
    }

    #[test]
    fn owners_are_kept_for_later() {
        let mut object =
            json!({"metadata": {"name": "data", "ownerReferences": [{"kind": "StatefulSet", "uid": "u"}]}});
        let waiting = unfilled(&mut object);
        assert_eq!(comparable(object), claim());
        assert_eq!(waiting.owners["metadata"]["ownerReferences"][0]["kind"], "StatefulSet");
    }

    #[test]
    fn a_claim_of_any_shape_is_passed_on_without_harm() {
        for object in [json!(null), json!([1]), json!({"metadata": 7}), json!({"metadata": {"annotations": "x"}})] {
            let mut marked = object.clone();
            unfilled(&mut marked);
            assert_eq!(comparable(marked), object);
        }
    }
}
