//! Creates objects, so that a lost answer does no harm.
//!
//! A create whose answer is lost may have happened: asking again then meets the object, and what exists is returned
//! with its content, so that the caller can tell its own from another's.

use serde_json::Value;
use stillpoint_api::{GroupResource, ObjectRef, ResourceType};

use crate::{
    Error,
    request::{Ask, MAX_OBJECT_BYTES, collection, segment},
    retry::Retry,
};

/// Whether the server is only asked what would come of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// The write happens.
    No,
    /// The write is checked and admitted, and nothing is stored.
    Yes,
}

/// What came of a create.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    /// The object as the server has it now.
    New(Value),
    /// An object of that name existed, and was left as it is.
    Exists(Value),
}

/// Creates an object where its metadata says.
///
/// # Errors
/// The server refuses it ([`Error::Api`] and its like, in the server's words), or cannot be asked.
pub async fn create(
    client: &kube::Client,
    resource: &ResourceType,
    object: &Value,
    dry_run: DryRun,
    retry: &Retry,
) -> Result<Created, Error> {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().filter(|_| resource.namespaced);
    let name = metadata["name"].as_str().unwrap_or_default();
    let named = ObjectRef::new(resource.name.clone(), namespace, name);
    let collection = collection(resource, namespace);
    let query = match dry_run {
        DryRun::No => "?fieldManager=stillpoint",
        DryRun::Yes => "?fieldManager=stillpoint&dryRun=All",
    };
    let create = Ask::post(format!("create {named}"), format!("{collection}{query}"), object.to_string().into_bytes());
    match create.json(client, retry).await {
        Ok(created) => Ok(Created::New(created)),
        Err(Error::AlreadyExists { .. }) => {
            let get = Ask::get(format!("get {named}"), format!("{collection}/{}", segment(name)), MAX_OBJECT_BYTES);
            get.json(client, retry).await.map(Created::Exists)
        }
        Err(error) => Err(error),
    }
}

/// Whether a version of a type answers lists by now.
///
/// # Errors
/// The server cannot be asked.
pub async fn is_served(
    client: &kube::Client,
    resource: &GroupResource,
    version: &str,
    retry: &Retry,
) -> Result<bool, Error> {
    let of =
        ResourceType { name: resource.clone(), version: version.to_owned(), kind: String::new(), namespaced: false };
    let target = format!("{}?limit=1", collection(&of, None));
    match Ask::get(format!("list {resource}"), target, MAX_OBJECT_BYTES).send(client, retry).await {
        Ok(_) => Ok(true),
        Err(Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
