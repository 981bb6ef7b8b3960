//! The suite on the embedded API server, and what only a server in our own hands can be made to do.

use futures::future::BoxFuture;
use serde_json::json;
use stillpoint_apiserver::{Config, Server};
use stillpoint_objects::{
    Error,
    discovery::discover,
    list::{list_at, read_revision},
    retry::Retry,
};

use crate::{client, suite};

async fn on_embedded(test: impl FnOnce(kube::Client) -> BoxFuture<'static, ()>) {
    let server = Server::start(Config::default()).await.unwrap();
    test(client(&server.kubeconfig(), None).await).await;
    server.shutdown().await;
}

macro_rules! on_embedded {
    ($($name:ident),* $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            on_embedded(|client| Box::pin(suite::$name(client))).await;
        }
    )* };
}

on_embedded!(
    an_old_revision_is_listed_as_it_was,
    many_objects_come_in_pages_and_a_cancelled_wait_loses_none,
    large_objects_make_small_pages,
    built_in_and_custom_types_share_the_store,
    custom_objects_are_served_once_defined_and_listed_with_their_type,
    discovery_is_whole_and_the_same_twice,
    what_exists_is_kept_and_a_dry_run_stores_nothing,
    what_is_not_there_is_an_outcome,
);

#[tokio::test]
async fn a_revision_that_is_compacted_within_a_list_is_expired_and_never_mixed() {
    let server = Server::start(Config::default()).await.unwrap();
    let client = client(&server.kubeconfig(), None).await;
    let retry = Retry::default();
    suite::namespace(&client, "shop").await;
    suite::fill(&client, "shop", 1200, 10_000).await;
    let revision = read_revision(&client, &retry).await.unwrap();
    let mut pages = list_at(&client, &suite::config_maps(), Some("shop"), revision, &retry);
    // the second page is on its way by now, the third is not
    assert_eq!(pages.next().await.unwrap().unwrap().len(), 100);
    suite::create(&client, &suite::config_maps(), suite::config_map("shop", "later", json!({}))).await;
    let mut seen = 100;
    seen += pages.next().await.unwrap().map_or(0, |page| page.len());
    assert!(seen < 1200, "the list must not have ended yet");
    let newest = read_revision(&client, &retry).await.unwrap();
    server.compact(newest.0).unwrap();
    let expired = loop {
        match pages.next().await {
            Ok(Some(page)) => seen += page.len(),
            Ok(None) => panic!("the end was reached with {seen} objects"),
            Err(error) => break error,
        }
    };
    assert!(matches!(expired, Error::Expired { .. }), "{expired}");
    assert!(expired.to_string().contains("configmaps.core in shop"), "{expired}");
    // asking again is no way to the end either
    assert!(matches!(pages.next().await, Err(Error::Expired { .. })));
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_that_is_gone_is_unreachable_and_one_that_is_not_trusted_is_not_asked_twice() {
    let server = Server::start(Config::default()).await.unwrap();
    let kubeconfig = server.kubeconfig();
    let other = Server::start(Config::default()).await.unwrap();
    // this server's address with the other's certificate
    let wrong = other.kubeconfig().replace(&other.url(), &server.url());
    let retry = Retry { attempts: 2, ..Retry::default() };
    let error = read_revision(&client(&wrong, None).await, &retry).await.unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
    other.shutdown().await;
    server.shutdown().await;
    let error = discover(&client(&kubeconfig, None).await, &retry).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().starts_with("read the server's version: the API server cannot be reached"), "{error}");
}

#[tokio::test]
async fn wrong_credentials_are_an_outcome() {
    let server = Server::start(Config::default()).await.unwrap();
    let wrong = server.kubeconfig().replace(server.token(), "wrong");
    let error = read_revision(&client(&wrong, None).await, &Retry::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    server.shutdown().await;
}
