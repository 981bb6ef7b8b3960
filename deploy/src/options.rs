//! What differs between clusters, checked before it is written into a manifest.
//!
//! The templates take text as it is, so nothing may come in that YAML would read in another way.

use std::{fmt, net::IpAddr, str::FromStr};

/// What differs between clusters.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything lies.
    pub namespace: Namespace,
    /// Whether the namespace is among the manifests.
    pub make_namespace: bool,
    /// The image with the program `stillpoint` on its PATH.
    pub image: Image,
    /// Whether agents listen on their node's own addresses, for clusters without a pod network.
    pub host_network: bool,
    /// Where agents reach the API server; none for what kubelet tells every pod.
    pub api_server: Option<ApiServer>,
    /// Kubelet's folder on every node.
    pub kubelet_root: HostFolder,
}

/// A value that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Not a namespace's name.
    #[error("{0:?} is no namespace: lower case letters, digits and dashes, at most 63, a letter or digit at both ends")]
    Namespace(String),
    /// Not an image's name.
    #[error("{0:?} is no image: write [REGISTRY/]NAME[:TAG][@DIGEST]")]
    Image(String),
    /// Not a server's address.
    #[error("{0:?} is no address of an API server: write HOST:PORT")]
    ApiServer(String),
    /// Not a folder's path.
    #[error("{0:?} is no folder: write an absolute path of letters, digits and . _ - + = @ , / alone")]
    HostFolder(String),
}

/// A namespace's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Namespace {
    type Err = OptionsError;

    fn from_str(text: &str) -> Result<Self, OptionsError> {
        if is_label(text) { Ok(Self(text.to_owned())) } else { Err(OptionsError::Namespace(text.to_owned())) }
    }
}

/// A container image's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image(String);

impl Image {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Image {
    type Err = OptionsError;

    fn from_str(text: &str) -> Result<Self, OptionsError> {
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let ends = text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if starts && ends && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(OptionsError::Image(text.to_owned()))
        }
    }
}

/// Where an API server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServer {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for ApiServer {
    type Err = OptionsError;

    fn from_str(text: &str) -> Result<Self, OptionsError> {
        let bad = || OptionsError::ApiServer(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.parse::<IpAddr>().is_err() && !host.split('.').all(is_label) {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| bad())? })
    }
}

/// A folder on nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFolder(String);

impl HostFolder {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostFolder {
    type Err = OptionsError;

    fn from_str(text: &str) -> Result<Self, OptionsError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+=@,/".contains(c);
        let is_folder =
            text.starts_with('/') && text.chars().all(is_plain) && !text.split('/').any(|part| part == "..");
        if is_folder { Ok(Self(text.to_owned())) } else { Err(OptionsError::HostFolder(text.to_owned())) }
    }
}

/// What Kubernetes calls an RFC 1123 label.
fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 63 && text.starts_with(inner) && text.ends_with(inner) && text.chars().all(|c| inner(c) || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_could_misread_does_not_come_in() {
        for text in ["", "a b", "a\nb: c", "A", "-a", "a-", "a.b", &"x".repeat(64)] {
            assert!(text.parse::<Namespace>().is_err(), "{text:?}");
        }
        for text in ["", "a: b", "a #b", "a\nb", "-a", "a:", "{a}", "a\"b"] {
            assert!(text.parse::<Image>().is_err(), "{text:?}");
        }
        for text in ["", "host", "host:", "host:99999", "ho st:1", "host:1\n", "\"host:1"] {
            assert!(text.parse::<ApiServer>().is_err(), "{text:?}");
        }
        for text in ["", "var/lib", "/var/lib/ku be", "/a\nb", "/a\"", "/$(NODE_NAME)", "/var/../etc"] {
            assert!(text.parse::<HostFolder>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_usual_comes_in() {
        assert_eq!("backup-2".parse::<Namespace>().unwrap().as_str(), "backup-2");
        for text in ["stillpoint", "localhost/stillpoint:test", "r.example:5000/a/b:1.2_3", "r.example/a@sha256:00ff"] {
            assert_eq!(text.parse::<Image>().unwrap().as_str(), text);
        }
        let six = "[fd00::1]:6443".parse::<ApiServer>().unwrap();
        assert_eq!((six.host.as_str(), six.port), ("fd00::1", 6443));
        assert_eq!("api.example.com:443".parse::<ApiServer>().unwrap().host, "api.example.com");
        let folder = "/var/snap/microk8s/common/var/lib/kubelet";
        assert_eq!(folder.parse::<HostFolder>().unwrap().as_str(), folder);
    }
}
