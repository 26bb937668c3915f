//! Content digests: BLAKE3 over aligned segments, then over the segments' digests.
//!
//! A file's digest is the BLAKE3 hash of the concatenated 32-byte digests of its aligned segments of
//! [`limits::SEGMENT_BYTES`], the last one short, followed by the file's length as 8 bytes, little-endian. The digest
//! of a full segment of zeros is the constant 32 zero bytes, so that a hole costs nothing on either side. Segments are
//! hashed in any order and on any thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits;

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The constant that stands for the digest of a full segment of zeros.
pub const ZERO_SEGMENT_DIGEST_BYTES: [u8; 32] = [0; 32];

/// The digest of one segment: BLAKE3, or the zero constant for a full segment of zeros.
pub fn segment_digest(bytes: &[u8]) -> Digest {
    if bytes.len() as u64 == limits::SEGMENT_BYTES && is_all_zero(bytes) {
        return Digest(ZERO_SEGMENT_DIGEST_BYTES);
    }
    Digest(*blake3::hash(bytes).as_bytes())
}

/// Whether all bytes are zero. Ends at the first that is not: dense data costs one comparison.
fn is_all_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|chunk| chunk.iter().fold(0, |acc, &byte| acc | byte) == 0)
}

/// Room for the digests of segments that come before an earlier one of their file: what all files of a session share.
#[derive(Debug)]
pub struct EarlySegments {
    free: AtomicUsize,
}

impl EarlySegments {
    /// Room for `segments`.
    pub fn new(segments: usize) -> Arc<EarlySegments> {
        Arc::new(EarlySegments { free: AtomicUsize::new(segments) })
    }

    fn take(&self) -> bool {
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
    }

    fn give_back(&self, segments: usize) {
        self.free.fetch_add(segments, Ordering::Relaxed);
    }
}

/// The digests of a file's segments, filled in any order. Those that come in order cost no memory, whatever the length;
/// those that come early are bounded.
#[derive(Debug)]
pub struct SegmentDigests {
    length: u64,
    hasher: blake3::Hasher,
    next: u64,
    early: BTreeMap<u64, Digest>,
    room: Arc<EarlySegments>,
}

impl SegmentDigests {
    /// For a file of `length` bytes whose segments come in order, or nearly so: at most
    /// [`limits::EARLY_SEGMENTS_FILE_MAX`] early.
    pub fn new(length: u64) -> SegmentDigests {
        SegmentDigests::within(length, &EarlySegments::new(limits::EARLY_SEGMENTS_FILE_MAX))
    }

    /// For a file of `length` bytes whose segments come over several connections: early as far as there is room.
    pub fn within(length: u64, room: &Arc<EarlySegments>) -> SegmentDigests {
        let room = Arc::clone(room);
        SegmentDigests { length, hasher: blake3::Hasher::new(), next: 0, early: BTreeMap::new(), room }
    }

    /// Number of segments.
    pub fn count(&self) -> u64 {
        self.length.div_ceil(limits::SEGMENT_BYTES)
    }

    /// Sets segment `index`; false when there is no such segment, it was set before, or it is early and no room is left.
    pub fn set(&mut self, index: u64, digest: Digest) -> bool {
        if index >= self.count() || index < self.next || self.early.contains_key(&index) {
            return false;
        }
        if index > self.next {
            let has_room = self.room.take();
            if has_room {
                self.early.insert(index, digest);
            }
            return has_room;
        }
        self.hasher.update(&digest.0);
        self.next += 1;
        let first = self.next;
        while let Some(digest) = self.early.remove(&self.next) {
            self.hasher.update(&digest.0);
            self.next += 1;
        }
        self.room.give_back((self.next - first) as usize);
        true
    }

    /// Segments that came before one that is still missing.
    pub fn early(&self) -> usize {
        self.early.len()
    }

    /// The file's digest; `None` while segments are missing.
    pub fn finish(&self) -> Option<Digest> {
        if self.next < self.count() {
            return None;
        }
        let mut hasher = self.hasher.clone();
        hasher.update(&self.length.to_le_bytes());
        Some(Digest(*hasher.finalize().as_bytes()))
    }
}

impl Drop for SegmentDigests {
    fn drop(&mut self) {
        self.room.give_back(self.early.len());
    }
}

/// A file's digest, taken from its bytes in order.
#[derive(Debug, Default)]
pub struct ContentHasher {
    outer: blake3::Hasher,
    pending: Vec<u8>,
    length: u64,
}

impl ContentHasher {
    /// Nothing hashed yet.
    pub fn new() -> ContentHasher {
        ContentHasher::default()
    }

    /// Adds the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let segment_bytes = limits::SEGMENT_BYTES as usize;
        while !bytes.is_empty() {
            if self.pending.is_empty() && bytes.len() >= segment_bytes {
                let (segment, rest) = bytes.split_at(segment_bytes);
                self.outer.update(&segment_digest(segment).0);
                bytes = rest;
                continue;
            }
            let take = (segment_bytes - self.pending.len()).min(bytes.len());
            self.pending.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.pending.len() == segment_bytes {
                self.outer.update(&segment_digest(&self.pending).0);
                self.pending.clear();
            }
        }
    }

    /// The digest of all bytes added.
    pub fn finish(mut self) -> Digest {
        if !self.pending.is_empty() {
            self.outer.update(&segment_digest(&self.pending).0);
        }
        self.outer.update(&self.length.to_le_bytes());
        Digest(*self.outer.finalize().as_bytes())
    }

    /// The digest of a file that is held whole in memory.
    pub fn digest(bytes: &[u8]) -> Digest {
        let mut hasher = ContentHasher::new();
        hasher.update(bytes);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_segments(bytes: &[u8]) -> Digest {
        let mut digests = SegmentDigests::new(bytes.len() as u64);
        let segments: Vec<_> = bytes.chunks(limits::SEGMENT_BYTES as usize).enumerate().collect();
        for (index, segment) in segments.into_iter().rev() {
            assert!(digests.set(index as u64, segment_digest(segment)));
            assert!(!digests.set(index as u64, segment_digest(segment)));
        }
        digests.finish().unwrap()
    }

    #[test]
    fn any_order_and_any_pieces_give_the_same_digest() {
        let segment = limits::SEGMENT_BYTES as usize;
        for length in [0, 1, segment - 1, segment, segment + 1, 3 * segment + 5] {
            let bytes: Vec<u8> = (0..length).map(|index| (index * 7 % 251) as u8).collect();
            let whole = ContentHasher::digest(&bytes);
            assert_eq!(by_segments(&bytes), whole, "{length}");
            let mut pieces = ContentHasher::new();
            for piece in bytes.chunks(100_003) {
                pieces.update(piece);
            }
            assert_eq!(pieces.finish(), whole, "{length}");
        }
    }

    #[test]
    fn length_tells_zeros_apart() {
        let segment = limits::SEGMENT_BYTES as usize;
        assert_eq!(segment_digest(&vec![0; segment]).0, ZERO_SEGMENT_DIGEST_BYTES);
        assert_ne!(segment_digest(&vec![0; segment - 1]).0, ZERO_SEGMENT_DIGEST_BYTES);
        assert_ne!(ContentHasher::digest(&vec![0; segment]), ContentHasher::digest(&vec![0; 2 * segment]));
    }

    #[test]
    fn incomplete_digests_do_not_finish() {
        let mut digests = SegmentDigests::new(limits::SEGMENT_BYTES + 1);
        assert!(digests.set(1, Digest([1; 32])));
        assert_eq!(digests.early(), 1);
        assert_eq!(digests.finish(), None);
        assert!(!digests.set(2, Digest([1; 32])));
    }

    #[test]
    fn a_length_that_no_file_has_costs_nothing() {
        for length in [u64::MAX, i64::MAX as u64] {
            let mut digests = SegmentDigests::new(length);
            let last = digests.count() - 1;
            assert!(digests.set(last, Digest([1; 32])));
            assert!(!digests.set(last + 1, Digest([1; 32])));
            let taken = (1..).take_while(|&index| digests.set(index, Digest([2; 32]))).count();
            assert_eq!(taken + 1, limits::EARLY_SEGMENTS_FILE_MAX);
            assert!(digests.set(0, Digest([0; 32])));
            assert_eq!(digests.early(), 1);
            assert_eq!(digests.finish(), None);
        }
    }

    #[test]
    fn files_share_the_room_for_early_segments_and_give_it_back() {
        let room = EarlySegments::new(3);
        let mut one = SegmentDigests::within(10 * limits::SEGMENT_BYTES, &room);
        let mut other = SegmentDigests::within(10 * limits::SEGMENT_BYTES, &room);
        assert!(one.set(2, Digest([1; 32])) && one.set(1, Digest([1; 32])) && other.set(5, Digest([1; 32])));
        assert!(!one.set(9, Digest([1; 32])) && !other.set(9, Digest([1; 32])));
        assert!(other.set(0, Digest([1; 32])), "what is in order needs no room");
        assert!(one.set(0, Digest([1; 32])));
        assert!(other.set(8, Digest([1; 32])) && other.set(7, Digest([1; 32])));
        assert!(!one.set(9, Digest([1; 32])));
        drop(other);
        assert!((4..7).all(|index| one.set(index, Digest([1; 32]))));
        assert!(!one.set(7, Digest([1; 32])));
    }

    #[test]
    fn the_format_is_frozen() {
        assert_eq!(ContentHasher::digest(b"").to_string(), blake3::hash(&[0; 8]).to_hex().to_string());
        let inner = blake3::hash(b"abc");
        let mut outer = inner.as_bytes().to_vec();
        outer.extend_from_slice(&3u64.to_le_bytes());
        assert_eq!(ContentHasher::digest(b"abc").to_string(), blake3::hash(&outer).to_hex().to_string());
    }
}
