//! An endpoint that nobody serves is reported while the user still looks on.
//!
//! A binary of its own: S3 takes its settings from the environment, which all tests of a binary share.

#![allow(clippy::unwrap_used, unsafe_code)]

use std::time::{Duration, Instant};

use stillpoint_repository::{Error, Password, Repository, Store};

#[tokio::test]
async fn an_unreachable_endpoint_is_one_clear_sentence_within_25_seconds() {
    // a port that was free a moment ago
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_ACCESS_KEY_ID", "key".into()),
        ("AWS_SECRET_ACCESS_KEY", "secret".into()),
        ("AWS_REGION", "eu-central-1".into()),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let started = Instant::now();
    let store = Store::from_url_with("s3://bucket/some/prefix", settings).unwrap();
    let error = Repository::open(store, &Password::new("x")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.starts_with("s3://bucket/some/prefix cannot be reached: "), "{sentence}");
    assert!(sentence.contains("Connection refused"), "{sentence}");
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
}
