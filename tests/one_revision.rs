//! One revision: every object of a backup is the object at the backup's revision, while a writer writes.
//!
//! On the embedded server; `cluster_one_revision` proves the same of a real one.

#![allow(clippy::unwrap_used)]

mod common;

use common::{
    cluster::{create_namespace, embedded},
    pairs::prove_one_revision,
};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_backups_hold_the_pair_as_it_was_at_their_revision_and_naive_lists_do_not() {
    let cluster = embedded().await;
    create_namespace(&cluster.client, "proof").await;
    prove_one_revision(&cluster.client, "proof").await;
}
