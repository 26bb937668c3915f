//! Signatures: what the receiver tells of one window of its basis.

use super::sums::{SegmentSums, block_sum};
use super::{DeltaError, is_all_zero};
use crate::limits;
use crate::model::Digest;

/// Bytes of a block's strong sum: its chaining value in its segment's BLAKE3 tree, truncated. A match by accident is out of reach at 128 bits, one by intent
/// only spoils the peer's own file, and the segment's full digest is compared in the end.
pub(super) const STRONG_BYTES: usize = 16;
const WEAK_BYTES: usize = 4;
const HEADER_BYTES: usize = 16;

/// The strong sum that stands for a block of zeros.
const ZERO_BLOCK: [u8; STRONG_BYTES] = [0; STRONG_BYTES];

/// What is known of one block of the basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Rolling sum in the sense of `fast_rsync`; 0 and without meaning for zeros and for a short block.
    pub(super) weak: u32,
    strong: [u8; STRONG_BYTES],
}

impl Block {
    /// Whether these bytes are the block's, which lies at `basis_offset`. The caller sees to the length.
    pub(super) fn matches(&self, bytes: &[u8], basis_offset: u64) -> bool {
        if self.is_zero() { is_all_zero(bytes) } else { strong_sum(&block_sum(bytes, basis_offset)) == self.strong }
    }

    /// Whether bytes with this sum, of [`SegmentSums`] and at the same place, are the block's; no block of zeros.
    pub(super) fn has_sum(&self, sum: &[u8; 32]) -> bool {
        strong_sum(sum) == self.strong
    }

    /// Whether the block is all zeros.
    pub(super) fn is_zero(&self) -> bool {
        self.strong == ZERO_BLOCK
    }
}

/// The sums of all aligned blocks of one window of a basis. Only a window at the end of the basis has a short last
/// block.
///
/// Encoded, integers little-endian: offset (u64), window length (u32), block size (u32); one bit for each block, lowest
/// bit of the first byte first, set for a block of zeros; then for every other block its weak sum (u32, left out for a
/// short block) and 16 bytes of its chaining value in the BLAKE3 tree of its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowSignature {
    offset: u64,
    length: u32,
    block_bytes: u32,
    blocks: Vec<Block>,
}

/// The signature of `window`, which lies at `offset` of the basis. `block_bytes` is what
/// [`block_bytes_for`](super::block_bytes_for) gave for the basis; the window is at most
/// `limits::DELTA_WINDOW_BYTES` long, and starts at a multiple of that.
///
/// # Panics
/// When a caller breaks these rules.
pub fn signature_of(offset: u64, window: &[u8], block_bytes: u32) -> WindowSignature {
    describe(offset, window, block_bytes).0
}

/// As [`signature_of`], and the digests of the window's segments: both are had for one hash of each byte.
///
/// # Panics
/// As [`signature_of`].
pub fn describe(offset: u64, window: &[u8], block_bytes: u32) -> (WindowSignature, Vec<Digest>) {
    assert!(is_block_size(block_bytes), "block size {block_bytes}");
    assert!(offset.is_multiple_of(limits::DELTA_WINDOW_BYTES), "window at {offset}");
    assert!(window.len() as u64 <= limits::DELTA_WINDOW_BYTES, "window of {} bytes", window.len());
    let mut blocks = Vec::with_capacity(window.len().div_ceil(block_bytes as usize));
    let mut digests = Vec::new();
    let mut sums = SegmentSums::default();
    for segment in window.chunks(limits::SEGMENT_BYTES as usize) {
        digests.push(sums.take(segment, block_bytes as usize));
        for (index, bytes) in segment.chunks(block_bytes as usize).enumerate() {
            blocks.push(match sums.of_block(index) {
                Some(sum) if !is_all_zero(bytes) => {
                    let weak = if bytes.len() == block_bytes as usize { weak_sum(bytes) } else { 0 };
                    Block { weak, strong: strong_sum(sum) }
                }
                _ => Block { weak: 0, strong: ZERO_BLOCK },
            });
        }
    }
    (WindowSignature { offset, length: window.len() as u32, block_bytes, blocks }, digests)
}

/// Whether a block size is a power of two within the limits. 0 would make `fast_rsync` loop or panic.
pub(super) fn is_block_size(block_bytes: u32) -> bool {
    block_bytes.is_power_of_two()
        && (limits::DELTA_BLOCK_BYTES_MIN..=limits::DELTA_BLOCK_BYTES_MAX).contains(&block_bytes)
}

fn strong_sum(sum: &[u8; 32]) -> [u8; STRONG_BYTES] {
    let mut strong = [0; STRONG_BYTES];
    strong.copy_from_slice(&sum[..STRONG_BYTES]);
    strong
}

/// The weak sum that `fast_rsync` rolls, defined by librsync: two 16-bit sums, of the bytes and of the running first
/// sum, with 31 added to each byte. Made here, since the crate gives it only together with an MD4 hash, which would be
/// most of the cost of a signature and decide nothing.
pub(super) fn weak_sum(bytes: &[u8]) -> u32 {
    const LANE_BYTES: usize = 64;
    const OFFSET: u16 = 31;
    // All of it is modulo 2^16.
    let (lanes, rest) = bytes.as_chunks::<LANE_BYTES>();
    let mut sum: u16 = 0;
    let mut weighted: u16 = 0;
    for lane in lanes {
        let mut lane_sum: u16 = 0;
        let mut lane_weighted: u16 = 0;
        for (index, &byte) in lane.iter().enumerate() {
            lane_sum = lane_sum.wrapping_add(u16::from(byte));
            lane_weighted = lane_weighted.wrapping_add(u16::from(byte).wrapping_mul((LANE_BYTES - index) as u16));
        }
        weighted = weighted.wrapping_add(sum.wrapping_mul(LANE_BYTES as u16)).wrapping_add(lane_weighted);
        sum = sum.wrapping_add(lane_sum);
    }
    for &byte in rest {
        sum = sum.wrapping_add(u16::from(byte));
        weighted = weighted.wrapping_add(sum);
    }
    let count = bytes.len() as u64;
    sum = sum.wrapping_add((count as u16).wrapping_mul(OFFSET));
    weighted = weighted.wrapping_add(((count * (count + 1) / 2) as u16).wrapping_mul(OFFSET));
    u32::from(sum) | (u32::from(weighted) << 16)
}

impl WindowSignature {
    /// Offset of the window in the basis.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the basis that the window covers.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Block size.
    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// The blocks in order.
    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Number of bytes of block `index`, which exists.
    pub(super) fn block_length(&self, index: usize) -> usize {
        let start = index * self.block_bytes as usize;
        (self.length as usize - start).min(self.block_bytes as usize)
    }

    /// Appends the encoded form: at most some 20 KiB.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.block_bytes.to_le_bytes());
        for eight in self.blocks.chunks(8) {
            out.push(eight.iter().enumerate().fold(0, |bits, (bit, block)| bits | (u8::from(block.is_zero()) << bit)));
        }
        for (index, block) in self.blocks.iter().enumerate().filter(|(_, block)| !block.is_zero()) {
            if self.block_length(index) == self.block_bytes as usize {
                out.extend_from_slice(&block.weak.to_le_bytes());
            }
            out.extend_from_slice(&block.strong);
        }
    }

    /// Reads the encoded form, all of `bytes`. Allocates for the blocks of one window at most.
    pub fn decode(bytes: &[u8]) -> Result<WindowSignature, DeltaError> {
        let fail = |reason| Err(DeltaError::Signature(reason));
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return fail("short header");
        };
        let [o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3, b0, b1, b2, b3] = *header;
        let offset = u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let block_bytes = u32::from_le_bytes([b0, b1, b2, b3]);
        if !is_block_size(block_bytes) {
            return fail("block size");
        }
        if length == 0 || u64::from(length) > limits::DELTA_WINDOW_BYTES {
            return fail("window length");
        }
        if !offset.is_multiple_of(limits::DELTA_WINDOW_BYTES) || offset > i64::MAX as u64 - limits::DELTA_WINDOW_BYTES {
            return fail("window offset");
        }
        let count = length.div_ceil(block_bytes) as usize;
        let Some((zeros, mut rest)) = rest.split_at_checked(count.div_ceil(8)) else {
            return fail("short map of zeros");
        };
        let mut signature = WindowSignature { offset, length, block_bytes, blocks: Vec::with_capacity(count) };
        for index in 0..count {
            if zeros[index / 8] & (1 << (index % 8)) != 0 {
                signature.blocks.push(Block { weak: 0, strong: ZERO_BLOCK });
                continue;
            }
            let mut weak = 0;
            if signature.block_length(index) == block_bytes as usize {
                let Some((sum, after)) = rest.split_first_chunk::<WEAK_BYTES>() else {
                    return fail("short weak sum");
                };
                weak = u32::from_le_bytes(*sum);
                rest = after;
            }
            let Some((strong, after)) = rest.split_first_chunk::<STRONG_BYTES>() else {
                return fail("short strong sum");
            };
            if *strong == ZERO_BLOCK {
                return fail("zeros that are not marked");
            }
            signature.blocks.push(Block { weak, strong: *strong });
            rest = after;
        }
        let spare_bits = count % 8;
        if spare_bits != 0 && zeros.last().is_some_and(|last| last >> spare_bits != 0) {
            return fail("spare bits");
        }
        if !rest.is_empty() {
            return fail("trailing bytes");
        }
        Ok(signature)
    }
}
