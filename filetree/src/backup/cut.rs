//! Cuts large files into pieces at borders that their content decides.
//!
//! FastCDC instead of restic's Rabin fingerprint: several times as fast, and any cut is valid in the format. What two
//! programs cut differently is stored twice, so a repository should be left to one of them for its large files. The
//! repository's secret polynomial seeds the cuts, so that sizes of pieces do not betray known content.

use std::borrow::Cow;

use fastcdc::v2020::{self, Normalization};

/// Files up to this size are one piece.
pub(super) const MIN: usize = 512 << 10;
const AVERAGE: usize = 1 << 20;
/// No piece is larger.
pub(super) const MAX: usize = 4 << 20;

/// Finds the ends of pieces.
pub(super) struct Cutter {
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
    strict: u64,
    relaxed: u64,
}

impl Cutter {
    pub(super) fn new(seed: u64) -> Self {
        let (gear, gear_shifted) = v2020::get_gear_with_seed(seed);
        let (strict, relaxed) = v2020::select_masks(AVERAGE, Normalization::Level1);
        Self { gear, gear_shifted, strict, relaxed }
    }

    /// Length of the first piece. Unless `data` ends the file it has at least [`MAX`] bytes.
    pub(super) fn cut(&self, data: &[u8]) -> usize {
        let Self { gear, gear_shifted, strict, relaxed } = self;
        let masks = (*strict, *relaxed, strict << 1, relaxed << 1);
        v2020::cut_gear(data, MIN, AVERAGE, MAX, masks.0, masks.1, masks.2, masks.3, gear, gear_shifted).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(seed: u64, mut data: &[u8]) -> Vec<&[u8]> {
        let cutter = Cutter::new(seed);
        let mut pieces = Vec::new();
        while !data.is_empty() {
            let (piece, rest) = data.split_at(cutter.cut(data));
            pieces.push(piece);
            data = rest;
        }
        pieces
    }

    fn noise(size: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(size).collect()
    }

    #[test]
    fn pieces_stay_within_their_bounds_and_cover_everything() {
        let data = noise(24 << 20);
        let pieces = pieces(7, &data);
        assert_eq!(pieces.concat(), data);
        let (last, others) = pieces.split_last().unwrap();
        assert!(others.iter().all(|piece| (MIN..=MAX).contains(&piece.len())) && last.len() <= MAX);
        let average = data.len() / pieces.len();
        assert!((AVERAGE / 2..AVERAGE * 2).contains(&average), "{average}");
    }

    #[test]
    fn an_insertion_changes_few_pieces() {
        let before = noise(16 << 20);
        let mut after = before.clone();
        after.splice(5_000_000..5_000_000, *b"inserted");
        let old = pieces(7, &before);
        let new = pieces(7, &after).into_iter().filter(|piece| !old.contains(piece)).count();
        assert!(new <= 2, "{new} pieces are new");
    }

    #[test]
    fn another_repository_cuts_elsewhere() {
        let data = noise(16 << 20);
        assert_ne!(pieces(7, &data)[0].len(), pieces(8, &data)[0].len());
    }
}
