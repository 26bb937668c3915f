//! The receiver's basis of a file: what a delta is made against, and proof that it stayed what it was.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::fs;
use crate::limits;
use crate::model::{Digest, Metadata};
use crate::sync::clock;

/// An open basis, with what it was before the first byte was read.
pub(super) struct Basis {
    pub(super) file: File,
    pub(super) before: Metadata,
    /// Of segments that were described to the sender and have not come back yet.
    digests: Mutex<HashMap<u64, Digest>>,
}

impl Basis {
    /// Within one tick of the kernel's coarse clock after its last write, a further write would not move the times: such
    /// a file is left to age first.
    pub(super) fn new(file: File) -> io::Result<Basis> {
        let mut before = fs::metadata_of(&file)?;
        let age_ns = clock::now().total_nanoseconds() - before.mtime.max(before.ctime).total_nanoseconds();
        if (0..i128::from(limits::RACY_MTIME_NS)).contains(&age_ns) {
            clock::sleep_ns(limits::RACY_MTIME_NS as u64 - age_ns as u64);
            before = fs::metadata_of(&file)?;
        }
        Ok(Basis { file, before, digests: Mutex::default() })
    }

    /// Length in bytes, when it was opened.
    pub(super) fn bytes(&self) -> u64 {
        self.before.size
    }

    /// Whether it is still what it was when it was opened.
    pub(super) fn is_unchanged(&self) -> io::Result<bool> {
        Ok(fs::metadata_of(&self.file)?.same_content_as(&self.before))
    }

    /// Whether it is the inode that `metadata` tells of.
    pub(super) fn is_inode(&self, metadata: &Metadata) -> bool {
        (self.before.dev, self.before.ino) == (metadata.dev, metadata.ino)
    }

    /// Length in bytes of a segment; 0 behind the end.
    pub(super) fn segment_bytes(&self, index: u64) -> u64 {
        self.bytes().saturating_sub(index.saturating_mul(limits::SEGMENT_BYTES)).min(limits::SEGMENT_BYTES)
    }

    /// Notes the digest of a whole segment, before its signature leaves. Where a sender lets too many gather they are
    /// left out: that costs work, nothing else.
    pub(super) fn note(&self, index: u64, digest: Digest) {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if digests.len() < limits::BASIS_DIGESTS_MAX {
            digests.insert(index, digest);
        }
    }

    /// Takes the digest that was noted of a segment.
    pub(super) fn take(&self, index: u64) -> Option<Digest> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).remove(&index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basis(bytes: u64) -> Basis {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        Basis::new(file).unwrap()
    }

    #[test]
    fn a_write_right_after_the_look_shows() {
        for _ in 0..20 {
            let basis = basis(10);
            assert!(basis.is_unchanged().unwrap());
            fs::write_all_at(&basis.file, b"x", 3).unwrap();
            assert!(!basis.is_unchanged().unwrap());
        }
    }

    #[test]
    fn digests_are_taken_once_and_bounded() {
        let basis = basis(limits::SEGMENT_BYTES + 7);
        assert_eq!([0, 1, 2, u64::MAX].map(|index| basis.segment_bytes(index)), [limits::SEGMENT_BYTES, 7, 0, 0]);
        basis.note(0, Digest([1; 32]));
        assert_eq!(basis.take(0), Some(Digest([1; 32])));
        assert_eq!(basis.take(0), None);
        for index in 0..2 * limits::BASIS_DIGESTS_MAX as u64 {
            basis.note(index, Digest([2; 32]));
        }
        assert!(basis.take(limits::BASIS_DIGESTS_MAX as u64 - 1).is_some());
        assert!(basis.take(limits::BASIS_DIGESTS_MAX as u64).is_none());
    }
}
