//! Translates between the modes of Unix and Go's `FileMode`, which restic's nodes carry.
//!
//! Only the low nine bits are the same: Go keeps set-uid and its like, and the kind of a file, in bits of its own.

/// Go's bits and Unix's for the kinds of files, and for the flags.
const KINDS: [(u32, u32); 6] = [
    (1 << 31, 0o040_000),
    (1 << 27, 0o120_000),
    (1 << 26, 0o060_000),
    (1 << 26 | 1 << 21, 0o020_000),
    (1 << 25, 0o010_000),
    (1 << 24, 0o140_000),
];
const FLAGS: [(u32, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];
const FILE: u32 = 0o100_000;
const KIND_MASK: u32 = 0o170_000;
const IRREGULAR: u32 = 1 << 19;

/// Go's `FileMode` of what `stat` calls `st_mode`.
pub fn go_mode(st_mode: u32) -> u32 {
    let kind = st_mode & KIND_MASK;
    let known = KINDS.iter().find(|(_, unix)| *unix == kind).map(|(go, _)| *go);
    let kind = if kind == FILE { 0 } else { known.unwrap_or(IRREGULAR) };
    FLAGS.iter().filter(|(_, unix)| st_mode & unix != 0).fold(kind | st_mode & 0o777, |mode, (go, _)| mode | go)
}

/// The permissions that `chmod` takes, set-uid, set-gid and sticky included, of Go's `FileMode`.
pub fn permissions(go_mode: u32) -> u32 {
    FLAGS.iter().filter(|(go, _)| go_mode & go != 0).fold(go_mode & 0o777, |mode, (_, unix)| mode | unix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_go_s_and_come_back() {
        for (unix, go) in [
            (0o100_644, 0o644),
            (0o104_755, 1 << 23 | 0o755),
            (0o041_777, 1 << 31 | 1 << 20 | 0o777),
            (0o042_770, 1 << 31 | 1 << 22 | 0o770),
            (0o120_777, 1 << 27 | 0o777),
            (0o060_660, 1 << 26 | 0o660),
            (0o020_620, 1 << 26 | 1 << 21 | 0o620),
            (0o010_600, 1 << 25 | 0o600),
            (0o140_755, 1 << 24 | 0o755),
            (0o030_644, 1 << 19 | 0o644),
        ] {
            assert_eq!(go_mode(unix), go, "{unix:o}");
            assert_eq!(permissions(go), unix & 0o7777, "{unix:o}");
        }
    }
}
