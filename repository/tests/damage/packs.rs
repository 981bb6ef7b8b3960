//! Damage to packs: bits that flip, bytes that are gone, and blobs that are not what they claim.

use stillpoint_repository::{FindingKind, Id, ReadData};

use crate::{
    case::{Case, Restic},
    common::forge::ForgedBlob,
};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a flipped bit in a blob of a file",
        damage: |fixture| fixture.flip(&fixture.backups[1].data, 100),
        read_data: ReadData::All,
        kind: FindingKind::PackDamaged,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a flipped bit in the header of a pack",
        damage: |fixture| {
            fixture.change(&fixture.backups[1].data, |bytes| *bytes.iter_mut().nth_back(30).unwrap() ^= 1)
        },
        read_data: ReadData::All,
        kind: FindingKind::PackDamaged,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a header length beyond the pack",
        damage: |fixture| {
            fixture
                .change(&fixture.backups[1].data, |bytes| bytes.iter_mut().rev().take(4).for_each(|byte| *byte = 0xff))
        },
        read_data: ReadData::All,
        kind: FindingKind::PackDamaged,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a truncated pack",
        damage: |fixture| fixture.change(&fixture.backups[1].data, |bytes| bytes.truncate(1000)),
        read_data: ReadData::None,
        kind: FindingKind::PackSize,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "an empty pack",
        damage: |fixture| fixture.change(&fixture.backups[1].data, Vec::clear),
        read_data: ReadData::None,
        kind: FindingKind::PackSize,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a pack that is longer than its blobs",
        damage: |fixture| fixture.change(&fixture.backups[1].data, |bytes| bytes.push(0)),
        read_data: ReadData::None,
        kind: FindingKind::PackSize,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a missing pack of files",
        damage: |fixture| fixture.remove(&fixture.backups[1].data),
        read_data: ReadData::None,
        kind: FindingKind::PackMissing,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a missing pack of directories",
        damage: |fixture| fixture.remove(&fixture.backups[1].trees),
        read_data: ReadData::None,
        kind: FindingKind::PackMissing,
        reaches: 1,
        restic: Restic::NotAsked,
    },
    Case {
        name: "a blob that expands to 200 MiB",
        damage: |fixture| {
            let id = Id::of(b"bomb");
            let stored = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 200 << 20), 1).unwrap();
            let bomb = ForgedBlob { tree: false, id, stored, uncompressed: Some(100) };
            let (path, indexed) = fixture.forge().pack(&[bomb]);
            fixture.forge().index(&[indexed]);
            path
        },
        read_data: ReadData::All,
        kind: FindingKind::PackDamaged,
        reaches: 0,
        restic: Restic::NotAsked,
    },
];
