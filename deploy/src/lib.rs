//! What runs in a cluster: manifests with every privilege explained, and the agents' certificates.
//!
//! The manifests are files that a person can read, in `manifests/`; here they get the few values that differ between
//! clusters. No I/O: whether they are printed or applied, and when a certificate is renewed, the caller decides.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod certificate;
mod options;
#[cfg(test)]
mod tests;

use askama::Template;
pub use certificate::{Certificate, CertificateError};
pub use options::{ApiServer, HostFolder, Image, Namespace, Options, OptionsError};
pub use stillpoint_api::installation::{
    AGENT, AUTHORITY as AUTHORITY_CONFIG_MAP, CLIENT_ACCOUNT as CLIENT, NAMESPACE as DEFAULT_NAMESPACE, PORT,
};

/// The label of everything that is installed; what it selects is what is removed.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGED_BY: &str = "stillpoint-install";
/// The Secret that holds an agent's certificate (`tls.crt`) and its key (`tls.key`).
pub const CERTIFICATE_SECRET: &str = "stillpoint-agent-tls";

/// Kubelet's folder where a node says nothing else.
pub const DEFAULT_KUBELET_ROOT: &str = "/var/lib/kubelet";

/// A type of what is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The group; empty for the core group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// Whether its objects lie in the namespace of the installation.
    pub namespaced: bool,
}

const fn kind(group: &'static str, version: &'static str, kind: &'static str, namespaced: bool) -> Kind {
    Kind { group, version, kind, namespaced }
}

/// Every type of what is installed, in the order in which it is removed: first what runs, last what it lies in.
pub const KINDS: [Kind; 11] = [
    kind("apps", "v1", "DaemonSet", true),
    kind("", "v1", "Service", true),
    kind("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", false),
    kind("rbac.authorization.k8s.io", "v1", "ClusterRole", false),
    kind("rbac.authorization.k8s.io", "v1", "RoleBinding", true),
    kind("rbac.authorization.k8s.io", "v1", "Role", true),
    kind("", "v1", "ServiceAccount", true),
    kind("", "v1", "Secret", true),
    kind("", "v1", "ConfigMap", true),
    kind("", "v1", "ResourceQuota", true),
    kind("", "v1", "Namespace", false),
];

#[derive(Template)]
#[template(path = "install.yaml", escape = "none")]
struct Install<'a> {
    version: &'static str,
    managed_by: &'static str,
    port: u16,
    namespace: &'a str,
    make_namespace: bool,
    image: &'a str,
    host_network: bool,
    api_server: Option<&'a ApiServer>,
    kubelet_root: &'a str,
    certificate: &'a Certificate,
}

/// The manifests as YAML documents.
///
/// # Errors
/// A template cannot be filled, which is a mistake in it.
pub fn manifests(options: &Options, certificate: &Certificate) -> Result<String, askama::Error> {
    let Options { namespace, make_namespace, image, host_network, api_server, kubelet_root } = options;
    Install {
        version: env!("CARGO_PKG_VERSION"),
        managed_by: MANAGED_BY,
        port: PORT,
        namespace: namespace.as_str(),
        make_namespace: *make_namespace,
        image: image.as_str(),
        host_network: *host_network,
        api_server: api_server.as_ref(),
        kubelet_root: kubelet_root.as_str(),
        certificate,
    }
    .render()
}
