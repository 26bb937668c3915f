//! The rolling search, by `fast_rsync`. It is given weak sums only and proposes; digests decide elsewhere.

use fast_rsync::{Signature, SignatureOptions};

/// Operations of the delta format that `fast_rsync` writes (librsync's): one byte, then big-endian numbers.
mod op {
    pub(super) const MAGIC_BYTES: usize = 4;
    pub(super) const END: u8 = 0x00;
    /// 1 to 64 bytes follow; the operation is their number.
    pub(super) const LITERAL_64: u8 = 0x40;
    /// A number of 1, 2, 4 or 8 bytes follows, then as many literal bytes.
    pub(super) const LITERAL_N1: u8 = 0x41;
    pub(super) const LITERAL_N8: u8 = 0x44;
    /// Offset and length follow: four widths of the one times four of the other.
    pub(super) const COPY_N1_N1: u8 = 0x45;
    pub(super) const COPY_N8_N8: u8 = 0x54;
}

/// A place whose weak sum is that of a block of the basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Where in the searched bytes.
    pub(super) at: usize,
    /// Offset of the block in the basis.
    pub(super) basis_offset: u64,
}

/// Blocks to search for.
pub(super) struct SearchIndex {
    signature: Signature,
    offsets: Vec<u64>,
    block_bytes: usize,
}

impl SearchIndex {
    /// From weak sums and offsets of full blocks. `block_bytes` is not 0. `None` without blocks.
    pub(super) fn new(block_bytes: u32, blocks: &[(u32, u64)]) -> Option<SearchIndex> {
        if blocks.is_empty() || block_bytes == 0 {
            return None;
        }
        // The signature of nothing is the header. With strong sums of no bytes a weak match is a match, so that the
        // crate needs no MD4 of the basis, and blocks of one weak sum keep the last of them.
        let header = Signature::calculate(&[], SignatureOptions { block_size: block_bytes, crypto_hash_size: 0 });
        let mut serialized = header.into_serialized();
        serialized.reserve_exact(4 * blocks.len());
        for (weak, _) in blocks {
            serialized.extend_from_slice(&weak.to_be_bytes());
        }
        let signature = Signature::deserialize(serialized).ok()?;
        let offsets = blocks.iter().map(|&(_, offset)| offset).collect();
        Some(SearchIndex { signature, offsets, block_bytes: block_bytes as usize })
    }

    /// Ready to search.
    pub(super) fn searcher(&self) -> Searcher<'_> {
        Searcher { indexed: self.signature.index(), index: self, delta: Vec::new() }
    }
}

/// A made index.
pub(super) struct Searcher<'a> {
    indexed: fast_rsync::IndexedSignature<'a>,
    index: &'a SearchIndex,
    delta: Vec<u8>,
}

impl Searcher<'_> {
    /// Candidates in `bytes` that do not overlap, in order. After one of them that proves false, what follows its first
    /// byte has to be searched anew.
    pub(super) fn candidates(&mut self, bytes: &[u8]) -> Vec<Candidate> {
        self.delta.clear();
        if fast_rsync::diff(&self.indexed, bytes, &mut self.delta).is_err() {
            // Only a header that was not made here, or a writer that fails.
            return Vec::new();
        }
        let mut candidates = Vec::new();
        let mut rest = self.delta.get(op::MAGIC_BYTES..).unwrap_or_default();
        let mut at = 0;
        while let Some((&operation, after)) = rest.split_first() {
            rest = after;
            match operation {
                1..=op::LITERAL_64 => {
                    at += usize::from(operation);
                    rest = rest.get(usize::from(operation)..).unwrap_or_default();
                }
                op::LITERAL_N1..=op::LITERAL_N8 => {
                    let length = take_number(&mut rest, operation - op::LITERAL_N1) as usize;
                    at += length;
                    rest = rest.get(length..).unwrap_or_default();
                }
                op::COPY_N1_N1..=op::COPY_N8_N8 => {
                    let widths = operation - op::COPY_N1_N1;
                    let first = take_number(&mut rest, widths / 4) as usize / self.index.block_bytes;
                    let count = take_number(&mut rest, widths % 4) as usize / self.index.block_bytes;
                    // One copy may run over blocks that are neighbours in the index, but not in the basis.
                    for &basis_offset in self.index.offsets.iter().skip(first).take(count) {
                        candidates.push(Candidate { at, basis_offset });
                        at += self.index.block_bytes;
                    }
                }
                op::END => break,
                _ => break,
            }
        }
        candidates
    }
}

/// A big-endian number of 1, 2, 4 or 8 bytes, by the two-bit `width`.
fn take_number(rest: &mut &[u8], width: u8) -> u64 {
    let (bytes, after) = rest.split_at_checked(1 << width).unwrap_or_default();
    *rest = after;
    bytes.iter().fold(0, |number, &byte| (number << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::signature::weak_sum;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn our_weak_sum_is_that_of_the_crate(bytes in proptest::collection::vec(any::<u8>(), 1..5000)) {
            let options = SignatureOptions { block_size: bytes.len() as u32, crypto_hash_size: 0 };
            let serialized = Signature::calculate(&bytes, options).into_serialized();
            prop_assert_eq!(&serialized[12..], &weak_sum(&bytes).to_be_bytes());
        }
    }

    #[test]
    fn blocks_are_found_where_they_are() {
        let block = 4096;
        let noise = crate::delta::tests::noise(7, 40 * block);
        let blocks: Vec<_> =
            (0..10).map(|index| (weak_sum(&noise[index * block..][..block]), 1000 * index as u64)).collect();
        let index = SearchIndex::new(block as u32, &blocks).unwrap();
        let mut text = noise[20 * block..20 * block + 70].to_vec();
        text.extend_from_slice(&noise[3 * block..6 * block]);
        text.extend_from_slice(&noise[30 * block..31 * block + 300]);
        text.extend_from_slice(&noise[..block]);
        let expected = [(70, 3000), (70 + block, 4000), (70 + 2 * block, 5000), (70 + 4 * block + 300, 0)];
        let found = index.searcher().candidates(&text);
        assert_eq!(found, expected.map(|(at, basis_offset)| Candidate { at, basis_offset }));
        assert!(index.searcher().candidates(&[]).is_empty());
        assert!(SearchIndex::new(4096, &[]).is_none());
    }
}
