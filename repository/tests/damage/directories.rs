//! Directories that no sound program writes, sealed with the repository's own key.

use stillpoint_repository::{FindingKind, Id, ReadData};

use crate::{
    case::{Case, Restic},
    common::forge::ForgedBlob,
};

fn node(name: &str, rest: &str) -> String {
    let time = "2026-01-02T03:04:05Z";
    format!(r#"{{"name":"{name}","mtime":"{time}","atime":"{time}","ctime":"{time}","uid":0,"gid":0,{rest}}}"#)
}

fn file(name: &str, size: u64) -> String {
    let content = Id::of(b"abc");
    node(name, &format!(r#""type":"file","size":{size},"content":["{content}"]"#))
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a flipped bit in a directory",
        damage: |fixture| fixture.flip(&fixture.backups[1].trees, 20),
        read_data: ReadData::None,
        kind: FindingKind::PackDamaged,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a snapshot of a directory that is nowhere",
        damage: |fixture| {
            fixture.forge().snapshot(&Id::of(b"nowhere"));
            "index".into()
        },
        read_data: ReadData::None,
        kind: FindingKind::BlobsMissing,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a directory that is no directory",
        damage: |fixture| {
            let forge = fixture.forge();
            let (path, indexed) = forge.pack(&[ForgedBlob::tree("{\"nodes\":7}")]);
            forge.index(&[indexed]);
            forge.snapshot(&Id::of(b"{\"nodes\":7}"));
            path
        },
        read_data: ReadData::None,
        kind: FindingKind::PackDamaged,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a name that occurs twice in its directory",
        damage: |fixture| {
            format!("tree {}", fixture.forge_tree(&format!(r#"{{"nodes":[{},{}]}}"#, file("a", 3), file("a", 3))))
        },
        read_data: ReadData::None,
        kind: FindingKind::TreeInvalid,
        reaches: 1,
        restic: Restic::Silent,
    },
    Case {
        name: "a directory that is not sorted",
        damage: |fixture| {
            format!("tree {}", fixture.forge_tree(&format!(r#"{{"nodes":[{},{}]}}"#, file("b", 3), file("a", 3))))
        },
        read_data: ReadData::None,
        kind: FindingKind::TreeInvalid,
        reaches: 1,
        restic: Restic::Silent,
    },
    Case {
        name: "a name that leads out of its directory",
        damage: |fixture| format!("tree {}", fixture.forge_tree(&format!(r#"{{"nodes":[{}]}}"#, file("../a", 3)))),
        read_data: ReadData::None,
        kind: FindingKind::TreeInvalid,
        reaches: 1,
        restic: Restic::Silent,
    },
    Case {
        name: "a directory without a tree",
        damage: |fixture| {
            let tree = format!(r#"{{"nodes":[{}]}}"#, node("a", r#""type":"dir","content":null"#));
            format!("tree {}", fixture.forge_tree(&tree))
        },
        read_data: ReadData::None,
        kind: FindingKind::TreeInvalid,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a file of another size than its blobs",
        damage: |fixture| format!("tree {}", fixture.forge_tree(&format!(r#"{{"nodes":[{}]}}"#, file("a", 4)))),
        read_data: ReadData::None,
        kind: FindingKind::FileSize,
        reaches: 1,
        restic: Restic::Silent,
    },
];
