//! Deltas of big files: what of a new file the destination's old one (the basis) already holds.
//!
//! The receiver describes its basis window by window ([`signature_of`]); the sender collects these in a [`BasisIndex`]
//! and answers segment by segment ([`match_segment`]); the receiver rebuilds each segment ([`apply`]) and compares its
//! digest. Memory is bounded on both sides whatever the length, and segments are independent, so callers run them in
//! parallel.
//!
//! A block is taken from the basis only when its digest agrees. Blocks at the same offset are tried first, since a
//! database changes in place; then blocks at the last shift that was found; and only what is left is searched, with
//! the rolling weak sum of `fast_rsync`, whose weak sum merely proposes.

mod basis;
mod instruction;
mod matching;
mod search;
mod signature;
mod sums;

pub use basis::BasisIndex;
pub use instruction::{BasisRead, Instruction, apply, decode_instructions, encode_instructions};
pub use matching::{MatchState, Segment, SegmentMatch, match_segment};
pub use signature::{WindowSignature, describe, signature_of};

use crate::limits;

/// Why a delta cannot be used. All but `Basis` mean that the peer sent something wrong.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// A signature's bytes are malformed.
    #[error("malformed block signature: {0}")]
    Signature(&'static str),
    /// A segment's instructions are malformed.
    #[error("malformed delta: {0}")]
    Instructions(&'static str),
    /// A copy reaches beyond the end of the basis.
    #[error("delta copies {length} bytes at offset {offset} of a basis of {basis_length} bytes")]
    CopyOutOfBounds {
        /// Offset in the basis.
        offset: u64,
        /// Bytes to copy.
        length: u64,
        /// Length of the basis.
        basis_length: u64,
    },
    /// The basis could not be read.
    #[error("cannot read the basis")]
    Basis(#[source] std::io::Error),
}

/// Block size for a basis of `length` bytes: a power of two, so that blocks lie on pages and divide segments.
pub fn block_bytes_for(length: u64) -> u32 {
    if length > limits::DELTA_LARGE_FILE_BYTES { limits::DELTA_BLOCK_BYTES_MAX } else { 16 << 10 }
}

/// Whether all bytes are zero. Dense data is told by its first bytes.
fn is_all_zero(bytes: &[u8]) -> bool {
    let (head, tail) = bytes.split_at(bytes.len().min(64));
    head.iter().all(|&byte| byte == 0)
        && tail.chunks(4096).all(|chunk| chunk.iter().fold(0, |acc, &byte| acc | byte) == 0)
}

#[cfg(test)]
mod tests;
