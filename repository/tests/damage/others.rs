//! Damage to snapshots, keys and locks.

use stillpoint_repository::{FindingKind, Id, ReadData};

use crate::case::{Case, Restic};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a flipped bit in a snapshot",
        damage: |fixture| fixture.flip(&format!("snapshots/{}", fixture.backups[1].snapshot), 60),
        read_data: ReadData::None,
        kind: FindingKind::SnapshotUnreadable,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a flipped bit in a key",
        damage: |fixture| fixture.flip(&fixture.key(), 40),
        read_data: ReadData::None,
        kind: FindingKind::KeyUnreadable,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a snapshot that is no snapshot",
        damage: |fixture| fixture.forge().write("snapshots", br#"{"time":"yesterday"}"#),
        read_data: ReadData::None,
        kind: FindingKind::SnapshotUnreadable,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a lock that cannot be read",
        damage: |fixture| {
            let garbage = [7; 100];
            let lock = format!("locks/{}", Id::of(&garbage));
            std::fs::write(fixture.path.join(&lock), garbage).unwrap();
            lock
        },
        read_data: ReadData::None,
        kind: FindingKind::LockUnreadable,
        reaches: 0,
        restic: Restic::Silent,
    },
    Case {
        name: "a lock whose holder is gone",
        damage: |fixture| {
            let lock =
                r#"{"time":"2026-01-02T03:04:05Z","exclusive":false,"hostname":"gone","username":"root","pid":1}"#;
            fixture.forge().write("locks", lock.as_bytes())
        },
        read_data: ReadData::None,
        kind: FindingKind::StaleLock,
        reaches: 0,
        // it does not even begin
        restic: Restic::Agrees,
    },
];
