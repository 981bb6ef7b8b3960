//! One revision, on a real kube-apiserver and etcd.
//!
//! The same proof as `one_revision`: there the server is our own, and might be wrong in the same way as the capture.

#![allow(clippy::unwrap_used)]

mod common;

use common::{
    cluster::{CLUSTER, on_real_cluster},
    pairs::prove_one_revision,
};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_backups_hold_the_pair_as_it_was_at_their_revision_and_naive_lists_do_not() {
    on_real_cluster(CLUSTER, async |real| prove_one_revision(&real.client, &real.namespace).await).await;
}
