//! Models restic's directories: trees of nodes, written byte for byte as restic writes them.
//!
//! A tree's id is the hash of its JSON, so field order, omitted fields and escapes are part of the format. A tree in
//! hand is always sorted and free of duplicate and unsafe names: nothing later has to ask.

mod mode;

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::mode::{go_mode, permissions};
use crate::{Error, Id, go};

/// The directory bit of Go's `FileMode`.
const GO_MODE_DIR: u32 = 1 << 31;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A block device.
    Dev,
    /// A character device.
    CharDev,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// Anything else.
    Irregular,
}

/// The content of a file as it was stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileContent {
    /// Data blobs in order.
    pub blobs: Vec<Id>,
    /// Bytes of the whole content.
    pub size: u64,
}

/// An extended attribute of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendedAttribute {
    /// Name with its namespace, such as `user.comment`.
    pub name: String,
    /// Value in base64.
    pub value: Option<String>,
}

/// An entry of a directory. Fields stand in the order in which restic writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name in its directory, never a path.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub name: OsString,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: NodeKind,
    /// Go's `FileMode`: permissions in the low nine bits, the kind in the high ones.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub mode: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Group's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Inode number where it was read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inode: u64,
    /// Device where it was read, for hard links.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub device_id: u64,
    /// Bytes of a file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Number of hard links.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub links: u64,
    /// Target of a symbolic link.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub linktarget: String,
    /// Target of a symbolic link that is not UTF-8, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linktarget_raw: Option<String>,
    /// Extended attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extended_attributes: Vec<ExtendedAttribute>,
    /// Number of a device node.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub device: u64,
    /// Data blobs of a file, in order.
    #[serde(default)]
    pub content: Option<Vec<Id>>,
    /// Tree of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtree: Option<Id>,
}

impl Node {
    /// A file that its owner, root, may read and write. `time` must be an honest time of its content: restic and its
    /// relatives compare times to find out what changed.
    pub fn file(name: impl Into<OsString>, content: FileContent, time: Timestamp) -> Self {
        let FileContent { blobs, size } = content;
        Self { size, links: 1, content: Some(blobs), mode: 0o600, ..Self::empty(name.into(), NodeKind::File, time) }
    }

    /// A directory that only root may enter, holding a stored tree.
    pub fn dir(name: impl Into<OsString>, subtree: Id, time: Timestamp) -> Self {
        let mode = GO_MODE_DIR | 0o700;
        Self { mode, subtree: Some(subtree), ..Self::empty(name.into(), NodeKind::Dir, time) }
    }

    fn empty(name: OsString, kind: NodeKind, time: Timestamp) -> Self {
        Self {
            name,
            kind,
            mode: 0,
            mtime: time,
            atime: time,
            ctime: time,
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            inode: 0,
            device_id: 0,
            size: 0,
            links: 0,
            linktarget: String::new(),
            linktarget_raw: None,
            extended_attributes: Vec::new(),
            device: 0,
            content: None,
            subtree: None,
        }
    }
}

/// A directory: nodes sorted by name, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// Sorts `nodes` into a tree.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that occurs twice, is empty, `.` or `..`, or holds a slash or a zero byte.
    pub fn new(nodes: Vec<Node>) -> Result<Self, Error> {
        Self::sorted(nodes).map_err(|(name, reason)| Error::invalid(format!("a file named {name:?}"), reason))
    }

    /// The nodes, sorted by the bytes of their names.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name.
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&Node> {
        let at = self.nodes.binary_search_by(|node| node.name.as_os_str().cmp(name.as_ref())).ok()?;
        self.nodes.get(at)
    }

    /// The JSON whose hash is the tree's id.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, Error> {
        let file = TreeFile { nodes: std::borrow::Cow::Borrowed(&self.nodes) };
        let mut json = go::to_json(&file).map_err(|error| Error::invalid("a tree", error.to_string()))?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads a tree that anybody may have written; the error says what is wrong with it.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, String> {
        let file: TreeFile<'_> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        Self::sorted(file.nodes.into_owned()).map_err(|(name, reason)| format!("its node {name:?}: {reason}"))
    }

    fn sorted(mut nodes: Vec<Node>) -> Result<Self, (OsString, &'static str)> {
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(node) = nodes.iter().find(|node| !is_safe(&node.name)) {
            return Err((node.name.clone(), "this is no name for a file"));
        }
        if let Some([twice, _]) = nodes.array_windows().find(|[a, b]| a.name == b.name) {
            return Err((twice.name.clone(), "the name occurs twice"));
        }
        Ok(Self { nodes })
    }
}

/// Whether a name stays inside its directory.
pub(crate) fn is_safe(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !matches!(bytes, b"" | b"." | b"..") && !bytes.iter().any(|byte| matches!(byte, b'/' | 0))
}

#[derive(Serialize, Deserialize)]
struct TreeFile<'a> {
    nodes: std::borrow::Cow<'a, [Node]>,
}

fn write_name<S: Serializer>(name: &OsStr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&go::quote(name))
}

pub(crate) fn read_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OsString, D::Error> {
    let quoted = String::deserialize(deserializer)?;
    go::unquote(&quoted).ok_or_else(|| serde::de::Error::custom(format!("the name {quoted:?} is not quoted rightly")))
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_tree_is_written_as_restic_writes_it() {
        let content = FileContent { blobs: vec![Id([0x11; 32])], size: 5 };
        let file = Node::file("b\"<x>", content, time("2024-05-06T07:08:09.120Z"));
        let dir = Node::dir("a", Id([0x22; 32]), time("2024-05-06T07:08:09Z"));
        let json = String::from_utf8(Tree::new(vec![file, dir]).unwrap().to_json().unwrap()).unwrap();
        let (ones, twos) = ("11".repeat(32), "22".repeat(32));
        let times = |t: &str| format!(r#""mtime":"{t}","atime":"{t}","ctime":"{t}","uid":0,"gid":0"#);
        assert_eq!(
            json,
            format!(
                concat!(
                    r#"{{"nodes":[{{"name":"a","type":"dir","mode":2147484096,{},"content":null,"subtree":"{}"}},"#,
                    r#"{{"name":"b\\\"\u003cx\u003e","type":"file","mode":384,{},"size":5,"links":1,"content":["{}"]}}]}}"#,
                    "\n"
                ),
                times("2024-05-06T07:08:09Z"),
                twos,
                times("2024-05-06T07:08:09.12Z"),
                ones,
            )
        );
        assert_eq!(Tree::from_json(json.as_bytes()).unwrap().to_json().unwrap(), json.as_bytes());
    }

    #[test]
    fn names_that_occur_twice_or_leave_the_directory_are_refused() {
        let node = |name: &str| Node::dir(name, Id([0; 32]), Timestamp::UNIX_EPOCH);
        Tree::new(vec![node("a"), node("b"), node("a")]).unwrap_err();
        for name in ["", ".", "..", "a/b", "/", "a\0"] {
            Tree::new(vec![node(name)]).unwrap_err();
            let json = format!(r#"{{"nodes":[{}]}}"#, serde_json::to_string(&node(name)).unwrap());
            assert!(Tree::from_json(json.as_bytes()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn unknown_fields_of_newer_versions_are_tolerated() {
        let node = serde_json::to_string(&Node::dir("a", Id([0; 32]), Timestamp::UNIX_EPOCH)).unwrap();
        let newer = node.replace("\"uid\"", "\"generic_attributes\":{},\"uid\"");
        let tree = Tree::from_json(format!(r#"{{"later":1,"nodes":[{newer}]}}"#).as_bytes()).unwrap();
        assert_eq!(tree.get("a").unwrap().kind, NodeKind::Dir);
        assert_eq!(tree.get("b"), None);
    }
}
