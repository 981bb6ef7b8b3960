//! How somebody else reaches the repository of a command: agents, and the pods that fill claims.
//!
//! A value that is handed over a connection and kept in memory; it is in no object of the cluster.

use std::{collections::BTreeMap, fmt, num::NonZeroU32};

use serde::{Deserialize, Serialize};
use stillpoint_repository::{Error, Password, Repository, Store, StoreOptions};

use crate::node::wire;

/// How others reach the repository. Its text is never printed.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// The repository's address.
    pub url: String,
    /// Why only this host can reach it, in words; none where every node can. Not handed over.
    #[serde(skip)]
    pub bound_to_this_host: Option<&'static str>,
    /// Its password.
    pub password: String,
    /// The variables that the store's credentials are in.
    pub variables: BTreeMap<String, String>,
    /// The server to ask instead of the provider's own.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// KiB a second to send at most.
    pub limit_upload: Option<NonZeroU32>,
    /// KiB a second to receive at most.
    pub limit_download: Option<NonZeroU32>,
}

impl Access {
    /// Opens the repository.
    ///
    /// # Errors
    /// It cannot be reached, or not with this password.
    pub async fn open(self) -> Result<Repository, Error> {
        let Self { url, bound_to_this_host: _, password, variables, endpoint, region, limit_upload, limit_download } =
            self;
        let options = StoreOptions { endpoint, region, ca_file: None, limit_upload, limit_download };
        let store = Store::connect_with(&url, &options, variables)?;
        Repository::open(store, &Password::new(password)).await
    }

    pub(crate) fn to_wire(&self) -> wire::Repository {
        wire::Repository {
            url: self.url.clone(),
            password: self.password.clone(),
            variables: self.variables.clone().into_iter().collect(),
            endpoint: self.endpoint.clone().unwrap_or_default(),
            region: self.region.clone().unwrap_or_default(),
            limit_upload: self.limit_upload.map_or(0, Into::into),
            limit_download: self.limit_download.map_or(0, Into::into),
        }
    }

    pub(crate) fn from_wire(wire: wire::Repository) -> Self {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            url: wire.url,
            bound_to_this_host: None,
            password: wire.password,
            variables: wire.variables.into_iter().collect(),
            endpoint: text(wire.endpoint),
            region: text(wire.region),
            limit_upload: wire.limit_upload.try_into().ok(),
            limit_download: wire.limit_download.try_into().ok(),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("url", &self.url).finish_non_exhaustive()
    }
}
