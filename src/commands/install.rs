//! `stillpoint install`: puts the agents, their identities and their certificate into a cluster.
//!
//! Everything is a manifest, printed or applied by the server; a second run changes what is to be changed and keeps a
//! certificate that is still good.

use clap::Args;
use serde::Serialize;
use stillpoint_deploy::{
    ApiServer, Certificate, DEFAULT_KUBELET_ROOT, DEFAULT_NAMESPACE, HostFolder, Image, Namespace, Options, manifests,
};

use crate::{
    args::OutputArgs,
    cluster::ClusterArgs,
    exit::Exit,
    installation::{self, Change, Installation},
    output,
};

pub(crate) const AFTER_HELP: &str = "\
Examples:
  stillpoint install --image registry.example/stillpoint:0.1.0
  stillpoint install --image registry.example/stillpoint:0.1.0 --print | kubectl apply -f -

docs/install.md explains what is installed and every privilege of it.";

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// The image that agents run, with stillpoint on its PATH; the Dockerfile beside the source makes one
    #[arg(long, env = "STILLPOINT_IMAGE", value_name = "NAME")]
    image: Image,
    /// The namespace to live in
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAMESPACE)]
    namespace: Namespace,
    /// Let agents listen on their nodes' own addresses: for clusters without a pod network
    #[arg(long)]
    host_network: bool,
    /// Where agents reach the API server, where not as every pod does
    #[arg(long, value_name = "HOST:PORT")]
    api_server: Option<ApiServer>,
    /// Kubelet's folder on the nodes, where it is another: /var/snap/microk8s/common/var/lib/kubelet, say
    #[arg(long, value_name = "DIR", default_value = DEFAULT_KUBELET_ROOT)]
    kubelet_root: HostFolder,
    /// Print the manifests and ask no cluster; they hold a new private key each time
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What came of an object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    object: String,
    change: Change,
}

pub(crate) async fn run(args: InstallArgs) -> anyhow::Result<Exit> {
    let InstallArgs { image, namespace, host_network, api_server, kubelet_root, print, cluster, output } = args;
    let mut options = Options { namespace, make_namespace: true, image, host_network, api_server, kubelet_root };
    if print {
        output::text(&manifests(&options, &Certificate::new(&options.namespace)?)?)?;
        return Ok(Exit::Done);
    }
    let installed = Installation::new(cluster.connect().await?.client);
    installed.refuse_a_second(&options.namespace).await?;
    options.make_namespace = installed.makes_namespace(&options.namespace).await?;
    if !options.make_namespace {
        output::note(format_args!(
            "the namespace {} exists and is left as it is; where pod security is enforced, label it \
             pod-security.kubernetes.io/enforce=privileged",
            options.namespace
        ));
    }
    let certificate = match installed.certificate(&options.namespace).await? {
        Some(certificate) if certificate.is_good(&options.namespace) => certificate,
        _ => Certificate::new(&options.namespace)?,
    };
    let mut rows = Vec::new();
    for object in installation::parse(&manifests(&options, &certificate)?)? {
        let change = installed.apply(&object).await?;
        rows.push(Row { object: installation::name_of(&object), change });
    }
    output::print(output.output, &rows, || {
        let cells = rows.iter().map(|row| [row.object.clone(), row.change.to_string()]);
        let namespace = &options.namespace;
        format!(
            "{}next: kubectl -n {namespace} rollout status daemonset/{}\n",
            output::table(["OBJECT", "CHANGE"], cells),
            stillpoint_deploy::AGENT
        )
    })?;
    Ok(Exit::Done)
}
