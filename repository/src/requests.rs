//! Groups blobs that lie together in a pack, so that one request reads many.
//!
//! One rule for all who read many blobs in the order in which they lie: a store's latency costs more than some bytes
//! that are read in vain.

use fixedbitset::FixedBitSet;

use crate::inventory::{Inventory, Place};

/// What one request may take, unless one blob alone is larger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes from the first blob to the end of the last.
    pub(crate) span: u64,
    /// Plaintext of all blobs.
    pub(crate) plain: u64,
    /// Bytes that are read in vain between two blobs.
    pub(crate) gap: u64,
}

/// Sorts positions into the order in which their blobs lie in their packs.
pub(crate) fn sort(inventory: &Inventory, positions: &mut [u32]) {
    positions.sort_unstable_by_key(|position| {
        let place = &inventory.places[*position as usize];
        (place.pack, place.blob().end())
    });
}

/// Cuts sorted positions into requests.
pub(crate) struct Requests<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) limits: Limits,
    /// Positions that are never read together with others than these: one that cannot be read spoils its request.
    pub(crate) apart: &'a FixedBitSet,
    pub(crate) rest: &'a [u32],
}

impl Requests<'_> {
    fn place(&self, at: usize) -> &Place {
        &self.inventory.places[self.rest[at] as usize]
    }

    fn is_apart(&self, at: usize) -> bool {
        self.apart.contains(self.rest[at] as usize)
    }
}

impl Iterator for Requests<'_> {
    /// Owned, since what borrows cannot be held by a future that may move between threads.
    type Item = Vec<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rest.first()?;
        let first = self.place(0);
        let mut plain = first.plain();
        let mut length = 1;
        while length < self.rest.len() {
            let (last, next) = (self.place(length - 1), self.place(length));
            plain += next.plain();
            let span = next.blob().end().saturating_sub(u64::from(first.blob().offset));
            let gap = u64::from(next.blob().offset).saturating_sub(last.blob().end());
            let Limits { span: most, plain: most_plain, gap: widest } = self.limits;
            let fits = next.pack == first.pack && span <= most && plain <= most_plain && gap <= widest;
            if !fits || self.is_apart(length) != self.is_apart(0) {
                break;
            }
            length += 1;
        }
        let (request, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(request.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::tests::inventory;

    fn cut(limits: Limits, apart: &[usize]) -> Vec<usize> {
        let inventory = inventory(&[&[(1, &[10, 11, 12]), (2, &[20, 21])]], &[]);
        let mut positions: Vec<u32> = (0..5).collect();
        sort(&inventory, &mut positions);
        let apart: FixedBitSet = apart.iter().map(|at| positions[*at] as usize).collect();
        Requests { inventory: &inventory, limits, apart: &apart, rest: &positions }
            .map(|request| request.len())
            .collect()
    }

    #[test]
    fn a_request_stays_in_one_pack_and_within_its_limits() {
        let wide = Limits { span: 1000, plain: 1000, gap: 0 };
        assert_eq!(cut(wide, &[]), [3, 2]);
        assert_eq!(cut(Limits { span: 264, ..wide }, &[]), [2, 1, 2]);
        assert_eq!(cut(Limits { plain: 199, ..wide }, &[]), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn what_cannot_be_read_is_asked_for_alone() {
        assert_eq!(cut(Limits { span: 1000, plain: 1000, gap: 0 }, &[1, 2, 3]), [1, 2, 1, 1]);
    }
}
