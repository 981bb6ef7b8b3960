//! What an installation is called in a cluster.
//!
//! In one place for the manifests that make it and the coordinator that looks for it.

/// The namespace, unless another is asked for.
pub const NAMESPACE: &str = "stillpoint-system";
/// The labels of the agents' pods.
pub const AGENT_LABELS: &str = "app.kubernetes.io/name=stillpoint,app.kubernetes.io/component=agent";
/// The name of the DaemonSet, its account and its Service.
pub const AGENT: &str = "stillpoint-agent";
/// The account whose tokens agents accept; it has no rights.
pub const CLIENT_ACCOUNT: &str = "stillpoint-client";
/// The audience of these tokens: no other server takes them.
pub const AUDIENCE: &str = "stillpoint-agent";
/// The ConfigMap with the authority that signed the agents' certificate.
pub const AUTHORITY: &str = "stillpoint-agent-ca";
/// Its key: PEM.
pub const AUTHORITY_KEY: &str = "ca.crt";
/// Where agents listen.
pub const PORT: u16 = 7443;

/// The name in the agents' certificate.
pub fn server_name(namespace: &str) -> String {
    format!("{AGENT}.{namespace}.svc")
}
