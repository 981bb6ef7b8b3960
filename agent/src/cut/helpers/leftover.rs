//! Helper pods of backups that were killed.
//!
//! That a backup lives is seen by a change alone, so it takes a while to say of one that it does not: meanwhile the
//! backup goes on, and only its end waits.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use stillpoint_objects::helper::{has_ended, remove_seen};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{RENEWED_ANNOTATION, SILENT};

/// How often is looked whether its backup lives.
const LOOK: Duration = Duration::from_secs(5);

/// Removes another backup's pod if nobody wants it any more.
pub(super) async fn settle(client: Client, seen: Pod, cancel: CancellationToken) {
    let pods = Api::namespaced(client.clone(), &seen.namespace().unwrap_or_default());
    if cancel.run_until_cancelled(is_left(&pods, &seen)).await != Some(true) {
        return;
    }
    let (namespace, pod) = (seen.namespace().unwrap_or_default(), seen.name_any());
    match remove_seen(&client, &seen).await {
        Ok(()) => tracing::info!(namespace, pod, "removed a helper pod of a backup that was killed"),
        Err(error) => tracing::warn!(%error, namespace, pod, "a helper pod of a backup that was killed is left"),
    }
}

/// Whether its backup has ended: it says nothing for long, or the pod is of no use any more.
async fn is_left(pods: &Api<Pod>, seen: &Pod) -> bool {
    let mut since = Instant::now();
    loop {
        match pods.get_opt(&seen.name_any()).await {
            Ok(Some(pod)) if pod.uid() == seen.uid() => {
                if has_ended(&pod) {
                    return true;
                }
                if renewed(&pod) != renewed(seen) {
                    return false;
                }
                if since.elapsed() >= SILENT {
                    return true;
                }
            }
            Ok(_) => return false,
            // nobody could say anything either
            Err(_) => since = Instant::now(),
        }
        time::sleep(LOOK).await;
    }
}

fn renewed(pod: &Pod) -> Option<&String> {
    pod.annotations().get(RENEWED_ANNOTATION)
}
