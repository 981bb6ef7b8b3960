//! Damage to the index: files that cannot be read, and files that say what is not so.

use stillpoint_repository::{FindingKind, ReadData};

use crate::{
    case::{Case, Restic},
    common::forge::ForgedBlob,
};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a flipped bit in an index",
        damage: |fixture| fixture.flip(&fixture.backups[1].index, 50),
        read_data: ReadData::None,
        kind: FindingKind::IndexUnreadable,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a missing index",
        damage: |fixture| {
            fixture.remove(&fixture.backups[1].index);
            "index".into()
        },
        read_data: ReadData::None,
        kind: FindingKind::BlobsMissing,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "an index that takes one blob for another",
        damage: |fixture| {
            fixture.change_pack("data", |pack| {
                let (first, second) = (pack["blobs"][0]["id"].clone(), pack["blobs"][1]["id"].clone());
                pack["blobs"][0]["id"] = second;
                pack["blobs"][1]["id"] = first;
            });
            fixture.backups[1].data.clone()
        },
        read_data: ReadData::All,
        kind: FindingKind::PackDamaged,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "an index that claims a blob of 4 GiB",
        damage: |fixture| {
            fixture.change_pack("data", |pack| {
                pack["blobs"][0]["length"] = u32::MAX.into();
                pack["blobs"][0]["uncompressed_length"] = u32::MAX.into();
            });
            fixture.backups[1].data.clone()
        },
        read_data: ReadData::All,
        kind: FindingKind::PackSize,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a directory that claims 4 GiB",
        damage: |fixture| {
            fixture.change_pack("tree", |pack| {
                let blobs = pack["blobs"].as_array_mut().unwrap();
                blobs.iter_mut().for_each(|blob| blob["uncompressed_length"] = u32::MAX.into());
            });
            fixture.backups[1].trees.clone()
        },
        read_data: ReadData::None,
        kind: FindingKind::PackDamaged,
        reaches: 1,
        restic: Restic::Silent,
    },
    Case {
        name: "an index that expands to 200 MiB",
        damage: |fixture| {
            let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(b' '), 200 << 20), 1).unwrap();
            fixture.forge().write_sealed("index", &[&[2], &bomb[..]].concat())
        },
        read_data: ReadData::None,
        kind: FindingKind::IndexUnreadable,
        reaches: 0,
        restic: Restic::NotAsked,
    },
    Case {
        name: "an index of endless depth",
        damage: |fixture| {
            let deep = format!(r#"{{"packs":[{{"id":{}"#, "[".repeat(1 << 20));
            fixture.forge().write("index", deep.as_bytes())
        },
        read_data: ReadData::None,
        kind: FindingKind::IndexUnreadable,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "packs that no index names",
        damage: |fixture| {
            fixture.forge().pack(&[ForgedBlob::data(b"orphan")]);
            "data".into()
        },
        read_data: ReadData::None,
        kind: FindingKind::UnreferencedPacks,
        reaches: 0,
        restic: Restic::Silent,
    },
    Case {
        name: "a blob that is stored twice",
        damage: |fixture| {
            let forge = fixture.forge();
            let twice = [(); 2].map(|()| forge.pack(&[ForgedBlob::data(b"one"), ForgedBlob::data(b"two")]).1);
            let other = forge.pack(&[ForgedBlob::data(b"two")]).1;
            forge.index(&[twice[0].clone(), other]);
            "data".into()
        },
        read_data: ReadData::None,
        kind: FindingKind::DuplicateBlobs,
        reaches: 0,
        restic: Restic::Silent,
    },
];
