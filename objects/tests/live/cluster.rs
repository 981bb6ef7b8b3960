//! The suite on a real kube-apiserver, and what only a real one does.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde_json::json;
use stillpoint_api::ResourceType;
use stillpoint_objects::{
    Error,
    discovery::discover,
    list::{count_at, fresh_revision, list_at, read_revision},
    retry::Retry,
};
use stillpoint_test_support::require;

use crate::{client, round_trip, suite};

const CLUSTER: &str = "STILLPOINT_TEST_CLUSTER";
const COMPACTING: &str = "STILLPOINT_TEST_CLUSTER_COMPACTING";
/// Three of the compacting cluster's intervals, and time to spare.
const COMPACTED_WITHIN: Duration = Duration::from_secs(90);

/// The kubeconfig's text; none when the test is to be skipped.
fn kubeconfig(variable: &str) -> Option<String> {
    require::env(variable).map(|path| std::fs::read_to_string(path).unwrap())
}

async fn on_cluster(test: impl FnOnce(kube::Client) -> BoxFuture<'static, ()>) {
    let Some(kubeconfig) = kubeconfig(CLUSTER) else { return };
    test(client(&kubeconfig, None).await).await;
}

macro_rules! on_cluster {
    ($($module:ident::$name:ident),* $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            on_cluster(|client| Box::pin($module::$name(client))).await;
        }
    )* };
}

on_cluster!(
    suite::an_old_revision_is_listed_as_it_was,
    suite::many_objects_come_in_pages_and_a_cancelled_wait_loses_none,
    suite::large_objects_make_small_pages,
    suite::built_in_and_custom_types_share_the_store,
    suite::custom_objects_are_served_once_defined_and_listed_with_their_type,
    suite::discovery_is_whole_and_the_same_twice,
    suite::what_exists_is_kept_and_a_dry_run_stores_nothing,
    suite::what_is_not_there_is_an_outcome,
    round_trip::what_is_restored_equals_what_was_captured,
    round_trip::what_controllers_make_from_services_is_known_as_theirs,
);

#[tokio::test]
async fn a_group_whose_server_is_gone_is_a_failure_by_name_and_the_others_go_on() {
    let Some(kubeconfig) = kubeconfig(CLUSTER) else { return };
    let client = client(&kubeconfig, None).await;
    let services = suite::resource("apiservices.apiregistration.k8s.io", "v1", "APIService", false);
    let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.gone.example.com"},
        "spec": {"group": "gone.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "gone"}}});
    suite::create(&client, &services, service).await;
    let discovery = discover(&client, &Retry::default()).await.unwrap();
    suite::delete(&client, "/apis/apiregistration.k8s.io/v1/apiservices/v1.gone.example.com").await;
    let failure = discovery.failures.iter().find(|failure| failure.subject == "gone.example.com/v1");
    assert!(failure.is_some_and(|failure| failure.message.contains("gone")), "{:?}", discovery.failures);
    assert!(discovery.get(&"deployments.apps".parse().unwrap()).is_some());
}

#[tokio::test]
async fn what_a_user_may_not_list_is_an_outcome_in_the_servers_words() {
    let Some(kubeconfig) = kubeconfig(CLUSTER) else { return };
    let (admin, nobody) = (client(&kubeconfig, None).await, client(&kubeconfig, Some("nobody")).await);
    let retry = Retry::default();
    let revision = read_revision(&admin, &retry).await.unwrap();
    let secrets = suite::resource("secrets", "v1", "Secret", true);
    let error = list_at(&nobody, &secrets, None, revision, &retry).next().await.unwrap_err();
    assert!(matches!(&error, Error::Forbidden { message, .. } if message.contains("nobody")), "{error:?}");
    assert!(error.to_string().starts_with("list secrets.core at revision"), "{error}");
    let error = count_at(&nobody, &secrets, None, revision, &retry).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "{error:?}");
}

#[tokio::test]
async fn component_statuses_come_from_no_store() {
    let Some(kubeconfig) = kubeconfig(CLUSTER) else { return };
    let client = client(&kubeconfig, None).await;
    let statuses = suite::resource("componentstatuses", "v1", "ComponentStatus", false);
    let retry = Retry::default();
    assert_eq!(fresh_revision(&client, &statuses, &retry).await.unwrap(), None);
    let revision = read_revision(&client, &retry).await.unwrap();
    let error = list_at(&client, &statuses, None, revision, &retry).next().await.unwrap_err();
    assert!(matches!(error, Error::OtherStore { .. }), "{error:?}");
}

#[tokio::test]
async fn a_revision_that_is_compacted_is_expired() {
    let Some(kubeconfig) = kubeconfig(COMPACTING) else { return };
    let client = client(&kubeconfig, None).await;
    let (retry, maps): (_, ResourceType) = (Retry::default(), suite::config_maps());
    let revision = read_revision(&client, &retry).await.unwrap();
    let deadline = Instant::now() + COMPACTED_WITHIN;
    loop {
        match count_at(&client, &maps, None, revision, &retry).await {
            Err(Error::Expired { .. }) => break,
            Err(error) => panic!("{error}"),
            Ok(_) => assert!(Instant::now() < deadline, "not compacted in time"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let expired = list_at(&client, &maps, None, revision, &retry).next().await.unwrap_err();
    assert!(matches!(expired, Error::Expired { .. }), "{expired}");
}
