//! Sums of a segment's blocks that are also nodes of the segment's own BLAKE3 tree, so that one pass over the bytes gives
//! both them and the segment's digest.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::is_all_zero;
use crate::limits;
use crate::model::{Digest, ZERO_SEGMENT_DIGEST_BYTES};

/// The sum of a block that lies at `offset` of its file, a multiple of the block size: its chaining value in the tree of
/// its segment. The same bytes at another place within a segment have another sum.
pub(super) fn block_sum(bytes: &[u8], offset: u64) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset % limits::SEGMENT_BYTES);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// The sums of one segment's blocks. Used again and again, it allocates once.
#[derive(Debug, Default)]
pub(super) struct SegmentSums {
    sums: Vec<ChainingValue>,
}

impl SegmentSums {
    /// Sums the blocks of a whole segment, one that starts at a multiple of `limits::SEGMENT_BYTES` and is not longer;
    /// its digest, as [`segment_digest`](crate::model::segment_digest) has it.
    pub(super) fn take(&mut self, segment: &[u8], block_bytes: usize) -> Digest {
        debug_assert!(segment.len() as u64 <= limits::SEGMENT_BYTES);
        self.sums.clear();
        if segment.len() as u64 == limits::SEGMENT_BYTES && is_all_zero(segment) {
            return Digest(ZERO_SEGMENT_DIGEST_BYTES);
        }
        let blocks = segment.chunks(block_bytes).enumerate();
        self.sums.extend(blocks.map(|(index, bytes)| block_sum(bytes, (index * block_bytes) as u64)));
        match &self.sums[..] {
            // A tree of one block: its root is no chaining value.
            [] | [_] => Digest(*blake3::hash(segment).as_bytes()),
            sums => {
                let (left, right) = sums.split_at(left_count(sums.len()));
                Digest(*merge_subtrees_root(&merged(left), &merged(right), Mode::Hash).as_bytes())
            }
        }
    }

    /// The sum of a block; `None` in a full segment of zeros.
    pub(super) fn of_block(&self, index: usize) -> Option<&ChainingValue> {
        self.sums.get(index)
    }
}

/// How many of `count` blocks the left side of their tree has: the largest power of two that leaves something.
fn left_count(count: usize) -> usize {
    count.next_power_of_two() / 2
}

fn merged(sums: &[ChainingValue]) -> ChainingValue {
    match sums {
        [] => ChainingValue::default(),
        [one] => *one,
        more => {
            let (left, right) = more.split_at(left_count(more.len()));
            merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::segment_digest;

    #[test]
    fn the_digest_is_that_of_the_segment_whatever_its_length() {
        let segment = crate::delta::tests::noise(3, limits::SEGMENT_BYTES as usize);
        let mut sums = SegmentSums::default();
        for block_bytes in [4 << 10, 16 << 10, 32 << 10] {
            for count in 0..=segment.len() / block_bytes {
                for length in [count * block_bytes, count * block_bytes + 1, count * block_bytes + 3000] {
                    if let Some(bytes) = segment.get(..length) {
                        assert_eq!(sums.take(bytes, block_bytes), segment_digest(bytes), "{block_bytes} {length}");
                        assert_eq!(sums.sums.len(), length.div_ceil(block_bytes));
                    }
                }
            }
        }
        let zeros = vec![0; segment.len()];
        assert_eq!(sums.take(&zeros, 16 << 10), segment_digest(&zeros));
        assert_eq!(sums.of_block(0), None);
    }
}
