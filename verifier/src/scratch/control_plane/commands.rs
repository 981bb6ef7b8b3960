//! The command lines of a control plane's servers.
//!
//! Only here do releases differ: a flag is given to the releases that know it.

use std::path::Path;

use super::{pki::Pki, programs::Version, server::Arguments};

/// Loopback ports that were free when they were chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) apiserver: u16,
    pub(super) etcd: u16,
}

/// Until this release the controller manager served a second port, unencrypted.
const NO_UNENCRYPTED_PORT: Version = Version::new(1, 24);

/// Since this release controllers have the names that they are documented by.
const LONG_CONTROLLER_NAMES: Version = Version::new(1, 28);

const CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,\
                           serviceaccount-controller,serviceaccount-token-controller";
const CONTROLLERS_BEFORE: &str = "garbagecollector,namespace,serviceaccount,serviceaccount-token";

pub(super) fn etcd(pki: &Pki, ports: Ports) -> Arguments {
    let address = format!("https://127.0.0.1:{}", ports.etcd);
    Arguments::new(["--data-dir=etcd", "--client-cert-auth", "--peer-client-cert-auth"])
        .set("listen-client-urls", &address)
        .set("advertise-client-urls", &address)
        // a cluster of one has no peers: any port will do
        .set("listen-peer-urls", "https://127.0.0.1:0")
        .set("trusted-ca-file", &pki.etcd_authority)
        .set("cert-file", &pki.etcd.certificate)
        .set("key-file", &pki.etcd.key)
        .set("peer-trusted-ca-file", &pki.etcd_authority)
        .set("peer-cert-file", &pki.etcd.certificate)
        .set("peer-key-file", &pki.etcd.key)
}

/// Pods are admitted without their service account's token where no controller would make it.
pub(super) fn kube_apiserver(pki: &Pki, ports: Ports, with_controllers: bool) -> Arguments {
    Arguments::new([
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        // the address above is no endpoint that a cluster could use
        "--endpoint-reconciler-type=none",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--service-cluster-ip-range=10.96.0.0/12",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--cert-dir=apiserver",
    ])
    .set("secure-port", ports.apiserver.to_string())
    .set("etcd-servers", format!("https://127.0.0.1:{}", ports.etcd))
    .set("etcd-cafile", &pki.etcd_authority)
    .set("etcd-certfile", &pki.etcd_client.certificate)
    .set("etcd-keyfile", &pki.etcd_client.key)
    .set("client-ca-file", &pki.authority)
    .set("tls-cert-file", &pki.apiserver.certificate)
    .set("tls-private-key-file", &pki.apiserver.key)
    .set("service-account-key-file", &pki.service_accounts_public)
    .set("service-account-signing-key-file", &pki.service_accounts)
    .set_if(!with_controllers, "disable-admission-plugins", "ServiceAccount")
}

pub(super) fn kube_controller_manager(pki: &Pki, version: Version, kubeconfig: &Path) -> Arguments {
    let renamed = version >= LONG_CONTROLLER_NAMES;
    let controllers = if renamed { CONTROLLERS } else { CONTROLLERS_BEFORE };
    Arguments::new(["--leader-elect=false", "--secure-port=0"])
        .set_if(version < NO_UNENCRYPTED_PORT, "port", "0")
        .set("controllers", controllers)
        .set("kubeconfig", kubeconfig)
        .set("root-ca-file", &pki.authority)
        .set("service-account-private-key-file", &pki.service_accounts)
}
