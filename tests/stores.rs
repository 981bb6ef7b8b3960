//! How a store is named, reached and let in, as a user says it: flags, variables, profiles, identities.
//!
//! The program runs against a server that gives out identities and notes who comes. It proves the protocols as they are
//! published, not that a cloud answers so.

#![allow(clippy::unwrap_used)]

mod common;

use common::{
    shell::User,
    store::{Cloud, Visit},
};

const S3: &str = "s3://bucket/team";
const AZURE: &str = "az://container/team";
const GCS: &str = "gs://bucket/team";

/// Opens the repository, which the store does not have; the first request that reached the store.
async fn visit(cloud: &Cloud, repository: &str, endpoint: &str, variables: &[(&str, &str)]) -> Visit {
    let user = user(cloud, repository, endpoint);
    let user = variables.iter().fold(user, |user, (name, value)| user.with(name, value));
    comes(cloud, user).await
}

fn user(cloud: &Cloud, repository: &str, endpoint: &str) -> User {
    let user = User::new().with("STILLPOINT_REPO", repository).with("STILLPOINT_ENDPOINT", endpoint);
    std::fs::write(user.path("token"), "web-token").unwrap();
    std::fs::write(user.path("pod-token"), "pod-token").unwrap();
    std::fs::write(user.path("ca.pem"), &cloud.certificate).unwrap();
    user
}

async fn comes(cloud: &Cloud, user: User) -> Visit {
    let refused = move || user.is_refused(1, &["there is no repository at"], &["backup", "get"]);
    tokio::task::spawn_blocking(refused).await.unwrap();
    cloud.visit()
}

fn is_signed_by(visit: &Visit, key: &str, session: &str) {
    let signature = visit.header("authorization");
    assert!(signature.starts_with(&format!("AWS4-HMAC-SHA256 Credential={key}/")), "{visit:?}");
    assert_eq!(visit.header("x-amz-security-token"), session);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_is_asked_with_keys_and_session_of_the_environment() {
    let cloud = Cloud::start().await;
    let keys = [("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "ENV-session")];
    let visit = visit(&cloud, S3, &cloud.endpoint, &keys).await;
    is_signed_by(&visit, "ENV", "ENV-session");
    assert_eq!(visit.uri, "/bucket/team/config");
    assert!(visit.header("authorization").contains("/us-east-1/s3/"), "{visit:?}");
    assert!(visit.header("user-agent").starts_with("stillpoint/"), "{visit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_is_asked_with_keys_region_and_endpoint_of_a_profile() {
    let cloud = Cloud::start().await;
    let user = User::new().with("STILLPOINT_REPO", S3).with("AWS_PROFILE", "backups");
    std::fs::create_dir(user.path(".aws")).unwrap();
    let endpoint = &cloud.endpoint;
    let config =
        format!("[default]\nregion = nowhere\n\n[profile backups]\nregion = eu-west-7\nendpoint_url = {endpoint}\n");
    let keys =
        "# keys\n[backups]\naws_access_key_id = FILE\naws_secret_access_key = a/b+c=\naws_session_token=FILE-session\n";
    std::fs::write(user.path(".aws/config"), config).unwrap();
    std::fs::write(user.path(".aws/credentials"), keys).unwrap();
    let visit = comes(&cloud, user).await;
    is_signed_by(&visit, "FILE", "FILE-session");
    assert!(visit.header("authorization").contains("/eu-west-7/s3/"), "{visit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_is_asked_with_the_identity_of_the_machine() {
    let cloud = Cloud::start().await;
    let visit = visit(&cloud, S3, &cloud.endpoint, &[("AWS_METADATA_ENDPOINT", &cloud.endpoint)]).await;
    is_signed_by(&visit, "MACHINE", "MACHINE-session");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_is_asked_with_the_identity_of_the_pod() {
    let cloud = Cloud::start().await;
    let user = user(&cloud, S3, &cloud.endpoint);
    let file = user.path("pod-token");
    let user = user
        .with("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/pod-identity", cloud.endpoint))
        .with("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file);
    is_signed_by(&comes(&cloud, user).await, "POD", "POD-session");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_is_asked_with_the_role_of_a_web_identity_over_tls() {
    let cloud = Cloud::start().await;
    let user = user(&cloud, S3, &cloud.secure);
    let (file, ca) = (user.path("token"), user.path("ca.pem"));
    let user = user
        .with("AWS_WEB_IDENTITY_TOKEN_FILE", &file)
        .with("AWS_ROLE_ARN", "arn:aws:iam::1:role/backups")
        .with("AWS_ENDPOINT_URL_STS", &format!("{}/sts", cloud.secure))
        .with("STILLPOINT_CA_FILE", &ca);
    is_signed_by(&comes(&cloud, user).await, "WEB", "WEB-session");
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_is_asked_with_an_account_key_or_a_shared_access_signature() {
    let cloud = Cloud::start().await;
    let key = [("AZURE_STORAGE_ACCOUNT", "account"), ("AZURE_STORAGE_KEY", "c2VjcmV0")];
    let visit_ = visit(&cloud, AZURE, &cloud.endpoint, &key).await;
    assert!(visit_.header("authorization").starts_with("SharedKey account:"), "{visit_:?}");
    assert_eq!(visit_.uri, "/container/team/config");
    let cloud = Cloud::start().await;
    let sas = [("AZURE_ACCOUNT_NAME", "account"), ("AZURE_ACCOUNT_SAS", "?sv=2024&sig=a%2Bb")];
    let visit = visit(&cloud, AZURE, &cloud.endpoint, &sas).await;
    assert_eq!(visit.uri, "/container/team/config?sv=2024&sig=a%2Bb");
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_is_asked_with_the_identity_of_machine_pod_and_principal() {
    let account = ("AZURE_STORAGE_ACCOUNT", "account");
    let cloud = Cloud::start().await;
    let msi = format!("{}/msi", cloud.endpoint);
    let machine = visit(&cloud, AZURE, &cloud.endpoint, &[account, ("AZURE_MSI_ENDPOINT", &msi)]).await;
    assert_eq!(machine.header("authorization"), "Bearer machine");

    let cloud = Cloud::start().await;
    let authority = format!("{}/", cloud.endpoint);
    let principal =
        [account, ("AZURE_CLIENT_ID", "id"), ("AZURE_TENANT_ID", "tenant"), ("AZURE_AUTHORITY_HOST", &authority)];
    let user =
        principal.iter().fold(user(&cloud, AZURE, &cloud.endpoint), |user, (name, value)| user.with(name, value));
    let file = user.path("token");
    let pod = comes(&cloud, user.with("AZURE_FEDERATED_TOKEN_FILE", &file)).await;
    assert_eq!(pod.header("authorization"), "Bearer pod");

    let cloud = Cloud::start().await;
    let authority = format!("{}/", cloud.endpoint);
    let principal =
        [&principal[..3], &[("AZURE_AUTHORITY_HOST", authority.as_str()), ("AZURE_CLIENT_SECRET", "secret")]];
    let visited = visit(&cloud, AZURE, &cloud.endpoint, &principal.concat()).await;
    assert_eq!(visited.header("authorization"), "Bearer principal");
}

#[tokio::test(flavor = "multi_thread")]
async fn google_is_asked_with_a_token_or_the_identity_of_the_node() {
    let cloud = Cloud::start().await;
    let token = visit(&cloud, GCS, &cloud.endpoint, &[("GOOGLE_ACCESS_TOKEN", "token")]).await;
    assert_eq!((token.header("authorization"), token.uri.as_str()), ("Bearer token", "/bucket/team%2Fconfig"));
    let cloud = Cloud::start().await;
    let host = cloud.endpoint.trim_start_matches("http://");
    let node = visit(&cloud, GCS, &cloud.endpoint, &[("GCE_METADATA_HOST", host)]).await;
    assert_eq!(node.header("authorization"), "Bearer node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_used() {
    let cloud = Cloud::start().await;
    let keys = [("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "s"), ("HTTP_PROXY", &cloud.endpoint)];
    let visit = visit(&cloud, S3, "http://store.invalid", &keys).await;
    assert_eq!(visit.uri, "http://store.invalid/bucket/team/config");
}

/// A command that must be refused, in the background of this runtime's servers.
async fn is_refused(user: User, code: i32, words: &'static [&'static str]) {
    let refused = move || user.is_refused(code, words, &["backup", "get"]);
    tokio::task::spawn_blocking(refused).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_ca_is_asked_for_where_nobody_vouches_for_a_server() {
    let cloud = Cloud::start().await;
    let keys = |user: User| user.with("AWS_ACCESS_KEY_ID", "ENV").with("AWS_SECRET_ACCESS_KEY", "s");
    let words = &["cannot be reached: its certificate is not accepted", "--ca-file"];
    is_refused(keys(user(&cloud, S3, &cloud.secure)), 1, words).await;
    let known = keys(user(&cloud, S3, &cloud.secure));
    let ca = known.path("ca.pem");
    is_signed_by(&comes(&cloud, known.with("STILLPOINT_CA_FILE", &ca)).await, "ENV", "");
    let user = user(&cloud, S3, &cloud.secure);
    let wrong = user.path("token");
    is_refused(keys(user).with("STILLPOINT_CA_FILE", &wrong), 2, &["holds no certificate in PEM"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_unusable_credentials_are_named() {
    let cloud = Cloud::start().await;
    // a port that was free a moment ago
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("http://127.0.0.1:{port}");
    let without = user(&cloud, S3, &cloud.endpoint).with("AWS_METADATA_ENDPOINT", &nobody);
    is_refused(without, 1, &["no credentials for s3://bucket/team", "AWS_ACCESS_KEY_ID"]).await;
    let without = user(&cloud, AZURE, &cloud.endpoint);
    let without = without.with("AZURE_STORAGE_ACCOUNT", "account").with("AZURE_MSI_ENDPOINT", &nobody);
    is_refused(without, 1, &["no credentials for az://container/team", "AZURE_STORAGE_KEY"]).await;
    let unnamed = user(&cloud, AZURE, &cloud.endpoint);
    is_refused(unnamed, 2, &["set AZURE_STORAGE_ACCOUNT"]).await;
    is_refused(user(&cloud, S3, &cloud.endpoint).with("AWS_PROFILE", "none"), 2, &["the profile \"none\""]).await;
    let federated = user(&cloud, GCS, &cloud.endpoint);
    let file = federated.path("federated.json");
    std::fs::write(&file, r#"{"type":"external_account","audience":"x"}"#).unwrap();
    let federated = federated.with("GOOGLE_APPLICATION_CREDENTIALS", &file);
    is_refused(federated, 2, &["\"external_account\", which is not supported", "gcloud auth print-access-token"]).await;
    let secret = User::new().with("STILLPOINT_REPO", "s3://key:hunter2@bucket/x");
    assert!(!common::shell::text(&secret.runs(&["backup", "get"]).get_output().stderr).contains("hunter2"));
    is_refused(secret, 2, &["credentials do not belong in an address"]).await;
}
