//! Fresh buckets on the servers that `./test` starts, with what a client must know to use them.
//!
//! The servers outlive a test, so each test has a bucket of its own, and one that does not exist.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use http::{HeaderMap, Request};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};

use crate::require;

/// The account that Azurite has from the start, and its key, both published.
const AZURE_ACCOUNT: &str = "devstoreaccount1";
const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A bucket of a server that runs here.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Its address without a prefix.
    pub url: String,
    /// Environment variables by which a client finds it and is let in.
    pub variables: Vec<(String, String)>,
}

impl Bucket {
    pub(crate) fn new(scheme: &str, name: String, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { url: format!("{scheme}://{name}"), name, variables }
    }

    /// The same server, and a bucket that it does not have.
    #[must_use]
    pub fn absent(&self) -> Self {
        let name = unused_name();
        let url = self.url.replace(&self.name, &name);
        Self { name, url, variables: self.variables.clone() }
    }

    /// The same bucket, asked with another value of a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(present, _)| present != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }
}

pub(crate) fn unused_name() -> String {
    format!("test-{}", uuid::Uuid::new_v4().simple())
}

/// A bucket of the S3 server; `None` when the test is to be skipped.
///
/// # Panics
/// When the server does not make it.
#[must_use]
pub fn s3() -> Option<Bucket> {
    let endpoint = require::env("STILLPOINT_TEST_S3")?;
    let name = unused_name();
    put(&format!("{endpoint}/{name}"), &HeaderMap::new());
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ];
    Some(Bucket::new("s3", name, &variables))
}

/// A container of the Azure server; `None` when the test is to be skipped.
///
/// # Panics
/// When the server does not make it.
#[must_use]
pub fn azure() -> Option<Bucket> {
    let endpoint = format!("{}/{AZURE_ACCOUNT}", require::env("STILLPOINT_TEST_AZURE")?);
    let name = unused_name();
    let url = format!("{endpoint}/{name}?restype=container");
    let mut request =
        Request::put(&url).header("content-length", "0").body(Vec::new().into()).expect("a valid request");
    let key = AzureCredential::AccessKey(AzureAccessKey::try_new(AZURE_KEY).expect("a valid key"));
    AzureAuthorizer::new(&key, AZURE_ACCOUNT).try_authorize(&mut request).expect("to sign");
    put(&url, request.headers());
    let variables = [
        ("AZURE_STORAGE_ENDPOINT", endpoint.as_str()),
        ("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT),
        ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY),
    ];
    Some(Bucket::new("az", name, &variables))
}

/// Sends a PUT without a body, which must be done.
fn put(url: &str, headers: &HeaderMap) {
    let (host, path) = url.trim_start_matches("http://").split_once('/').expect("a url with a path");
    let mut stream = TcpStream::connect(host).expect("the server that ./test started");
    let mut head = format!("PUT /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n");
    for (name, value) in headers.iter().filter(|(name, _)| *name != "content-length") {
        head += &format!("{name}: {}\r\n", value.to_str().expect("a header in ASCII"));
    }
    let mut answer = String::new();
    stream.write_all(format!("{head}\r\n").as_bytes()).expect("the request to be taken");
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
}
