//! Content of a file while it arrives: what differs is written, what the basis has already is taken over from it late,
//! in long runs, or not at all.
//!
//! A segment whose digest is that of the basis's own segment in its place is not read again: the basis was hashed when
//! it was described to the sender. That holds only as long as the basis stays what it was then, so its times and length
//! are compared once more when all has been taken over, and the file is transferred whole where they moved.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::basis::Basis;
use crate::delta::Instruction;
use crate::fs;
use crate::limits;
use crate::model::{Digest, EarlySegments, Metadata, Operation, SegmentDigests};
use crate::sync::inplace::write_differences;
use crate::sync::receiver::{FileTask, Receiver, Written};
use crate::wire::Content;

/// Why a file cannot be brought to its end.
pub(super) type Failed = (Operation, io::Error);

/// The file that content arrives for.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) receiver: &'a Arc<Receiver>,
    pub(super) task: &'a FileTask,
    pub(super) basis: Option<&'a Basis>,
}

/// Content of one attempt. Its segments may be worked on by several threads at once.
pub(super) struct Arriving {
    pub(super) content: Content,
    pub(super) literal_bytes: AtomicU64,
    pub(super) matched_bytes: AtomicU64,
    digests: Mutex<SegmentDigests>,
    /// Whether segments may be taken over unread: not once an earlier attempt may have written into the basis.
    may_take_over: bool,
    /// Opened when the first segment comes that differs.
    written: OnceLock<Written>,
    opening: Mutex<()>,
    /// Segments that are as in the basis, and not copied yet.
    noted: Mutex<Runs>,
    /// What is written is the basis itself: what it was after our own last write, so that others' writes show.
    own_basis: Mutex<Option<Metadata>>,
    basis_changed: AtomicBool,
}

/// Ranges of bytes, neither empty nor touching.
#[derive(Debug, Default)]
struct Runs {
    by_start: BTreeMap<u64, u64>,
    bytes: u64,
}

impl Runs {
    /// Adds a range that overlaps none.
    fn add(&mut self, range: Range<u64>) {
        self.bytes += range.end - range.start;
        let end = self.by_start.remove(&range.end).unwrap_or(range.end);
        match self.by_start.range_mut(..range.start).next_back() {
            Some((_, before)) if *before == range.start => *before = end,
            _ => {
                self.by_start.insert(range.start, end);
            }
        }
    }

    /// Takes the first `bytes_max` bytes of the first run.
    fn take(&mut self, bytes_max: u64) -> Option<Range<u64>> {
        let (start, end) = self.by_start.pop_first()?;
        let cut = end.min(start.saturating_add(bytes_max));
        if cut < end {
            self.by_start.insert(cut, end);
        }
        self.bytes -= cut - start;
        Some(start..cut)
    }
}

/// Room to read old content into.
pub(super) type Old = Vec<u8>;

impl Arriving {
    pub(super) fn new(content: Content, room: &Arc<EarlySegments>, may_take_over: bool) -> Arriving {
        Arriving {
            content,
            literal_bytes: AtomicU64::new(0),
            matched_bytes: AtomicU64::new(0),
            digests: Mutex::new(SegmentDigests::within(content.size, room)),
            may_take_over,
            written: OnceLock::new(),
            opening: Mutex::default(),
            noted: Mutex::default(),
            own_basis: Mutex::default(),
            basis_changed: AtomicBool::new(false),
        }
    }

    /// Notes a segment's digest; false where it has one already.
    pub(super) fn set(&self, index: u64, digest: Digest) -> bool {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).set(index, digest)
    }

    /// The digest of all that came; `None` while segments are missing.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).finish()
    }

    /// Whether something of it was written into the file that is there.
    pub(super) fn has_overwritten(&self) -> bool {
        matches!(self.written.get(), Some(Written::InPlace(_)))
    }

    /// Whether the basis was found to be not what it was.
    pub(super) fn has_changed_basis(&self) -> bool {
        self.basis_changed.load(Ordering::Relaxed)
    }

    /// Whether all that came is as in the basis, so that nothing was opened to be written.
    pub(super) fn is_as_basis(&self, basis: &Basis) -> bool {
        self.written.get().is_none() && self.noted().bytes == self.content.size && self.content.size == basis.bytes()
    }

    fn noted(&self) -> MutexGuard<'_, Runs> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_basis(&self) -> MutexGuard<'_, Option<Metadata>> {
        self.own_basis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a segment of `length` bytes with `digest` is what the basis, `known` there, has in its place.
    pub(super) fn is_there(
        &self,
        place: Place<'_>,
        index: u64,
        length: usize,
        digest: Digest,
        known: Option<Digest>,
    ) -> bool {
        self.may_take_over
            && known == Some(digest)
            && place.basis.is_some_and(|basis| basis.segment_bytes(index) == length as u64)
    }

    /// Takes a segment over from the basis, sooner or later. False where the basis turned out to have changed.
    pub(super) fn take_over(&self, place: Place<'_>, range: Range<u64>, old: &mut Old) -> Result<bool, Failed> {
        if self.own_basis().is_some() {
            return Ok(true);
        }
        let noted_bytes = {
            let mut noted = self.noted();
            noted.add(range);
            noted.bytes
        };
        match self.written.get() {
            Some(written) if noted_bytes >= limits::BASIS_COPY_BYTES => self.copy_noted(place, written, old),
            _ => Ok(true),
        }
    }

    /// Writes a segment that differs from what is there. False where the basis turned out to have changed.
    pub(super) fn write(&self, place: Place<'_>, bytes: &[u8], start: u64, old: &mut Old) -> Result<bool, Failed> {
        let Some(written) = self.open(place, old)? else { return Ok(false) };
        self.write_own(written, || write_at(place, written, bytes, start, old))
            .map_err(|error| (Operation::Write, error))
    }

    /// Writes a segment that was rebuilt by `instructions` from the basis, as it is now. False as above.
    pub(super) fn write_rebuilt(
        &self,
        place: Place<'_>,
        instructions: &[Instruction],
        bytes: &[u8],
        start: u64,
        old: &mut Old,
    ) -> Result<bool, Failed> {
        let Some(written) = self.open(place, old)? else { return Ok(false) };
        if self.own_basis().is_none() {
            return write_at(place, written, bytes, start, old)
                .map(|()| true)
                .map_err(|error| (Operation::Write, error));
        }
        // What is copied to where it comes from has just been read there.
        let write_changed = || {
            let mut at = 0;
            for instruction in instructions {
                let end = at + instruction.output_bytes();
                let stays =
                    matches!(instruction, Instruction::Copy { basis_offset, .. } if *basis_offset == start + at as u64);
                if !stays {
                    write_at(place, written, &bytes[at..end], start + at as u64, old)?;
                }
                at = end;
            }
            Ok(())
        };
        self.write_own(written, write_changed).map_err(|error| (Operation::Write, error))
    }

    /// Writes; where that is into the basis itself, between two looks at whether anyone else does.
    ///
    /// RACE: a foreign write between ours and the look behind it, or within the same tick of the kernel's clock, is taken
    /// for ours. `--inplace` promises nothing beside other writers; the worst case is what they wrote, as without a delta.
    fn write_own(&self, written: &Written, write: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
        let mut seen = self.own_basis();
        if let Some(seen) = &*seen
            && !fs::metadata_of(written.file())?.same_content_as(seen)
        {
            self.basis_changed.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        if seen.is_none() {
            drop(seen);
            write()?;
            return Ok(true);
        }
        write()?;
        *seen = Some(fs::metadata_of(written.file())?);
        Ok(true)
    }

    /// What is written to, with all that was noted before in it; `None` where the basis has changed.
    fn open(&self, place: Place<'_>, old: &mut Old) -> Result<Option<&Written>, Failed> {
        if self.written.get().is_none() {
            let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
            if self.written.get().is_none() {
                let written = place.receiver.open_written(place.task).map_err(|error| (Operation::Create, error))?;
                if let Some(basis) = place.basis.filter(|_| self.may_take_over)
                    && matches!(written, Written::InPlace(_))
                {
                    let now = fs::metadata_of(written.file()).map_err(|error| (Operation::Stat, error))?;
                    if basis.is_inode(&now) {
                        if !now.same_content_as(&basis.before) {
                            self.basis_changed.store(true, Ordering::Relaxed);
                            return Ok(None);
                        }
                        *self.own_basis() = Some(now);
                    }
                }
                let _opened_once = self.written.set(written);
            }
        }
        let Some(written) = self.written.get() else { return Ok(None) };
        Ok(self.copy_noted(place, written, old)?.then_some(written))
    }

    /// Copies what was noted from the basis; it stays noted where the run is to end. False where the basis has become
    /// unreadable or too short.
    fn copy_noted(&self, place: Place<'_>, written: &Written, old: &mut Old) -> Result<bool, Failed> {
        if self.own_basis().is_some() {
            *self.noted() = Runs::default();
            return Ok(true);
        }
        while !place.receiver.session.is_ending() {
            let Some(run) = self.noted().take(limits::BASIS_COPY_BYTES) else { return Ok(true) };
            let Some(basis) = place.basis else { return Ok(false) };
            if !copy_run(place, &basis.file, written, run, old)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All has come: what is written, complete save for its attributes. `None` where the basis has changed, or the run
    /// ends before it could be copied.
    pub(super) fn complete(self, place: Place<'_>, old: &mut Old) -> Result<Completed, Failed> {
        let Some(written) = self.open(place, old)? else { return Ok(Completed::Changed) };
        if self.noted().bytes > 0 {
            return Ok(Completed::Stopped);
        }
        let looked = match (&*self.own_basis(), place.basis) {
            (Some(seen), _) => fs::metadata_of(written.file()).map(|now| now.same_content_as(seen)),
            (None, Some(basis)) if self.may_take_over => basis.is_unchanged(),
            (None, _) => Ok(true),
        };
        if !looked.map_err(|error| (Operation::Stat, error))? {
            return Ok(Completed::Changed);
        }
        written.file().set_len(self.content.size).map_err(|error| (Operation::Write, error))?;
        Ok(self.written.into_inner().map_or(Completed::Changed, Completed::Yes))
    }

    /// The file does not come to its end: what there is of it, where that is of use to a later run. A stage that lacks
    /// much of what the basis has would be a worse basis than the one that is there.
    pub(super) fn into_part(self, place: Place<'_>) -> Option<Written> {
        if !place.receiver.session.options.partial || self.noted().bytes > 2 * limits::BASIS_COPY_BYTES {
            return None;
        }
        let written = self.written.get()?;
        let mut old = Old::new();
        while let Some(run) = self.noted().take(limits::BASIS_COPY_BYTES) {
            let copied =
                self.own_basis().is_some() || copy_run(place, &place.basis?.file, written, run, &mut old).ok()?;
            if !copied {
                return None;
            }
        }
        self.written.into_inner()
    }
}

/// How [`Arriving::complete`] went.
pub(super) enum Completed {
    Yes(Written),
    /// The basis is not what it was.
    Changed,
    /// The run ends.
    Stopped,
}

/// Writes at its place; `old` is room to compare in.
fn write_at(place: Place<'_>, written: &Written, bytes: &[u8], start: u64, old: &mut Old) -> io::Result<()> {
    match written {
        Written::InPlace(_) => {
            old.resize(bytes.len().max(old.len()), 0);
            write_differences(written.file(), bytes, old, start).map(|_| ())
        }
        Written::Staged(stage) if place.receiver.session.options.sparse => {
            fs::write_sparse_at(stage.file(), bytes, start)
        }
        Written::Staged(stage) => fs::write_all_at(stage.file(), bytes, start),
    }
}

/// Copies a range of the basis to the same place. False where the basis ends before, or cannot be read.
fn copy_run(place: Place<'_>, basis: &File, written: &Written, run: Range<u64>, old: &mut Old) -> Result<bool, Failed> {
    let failed = |error| (Operation::Write, error);
    let mut at = run.start;
    if matches!(written, Written::Staged(_)) && !place.receiver.session.options.sparse {
        at = fs::copy_range_in_kernel(basis, written.file(), run.clone()).map_err(failed)?;
    }
    let mut buffer = Vec::new();
    while at < run.end {
        let wanted = (run.end - at).min(limits::COPY_CHUNK_BYTES as u64) as usize;
        buffer.resize(wanted, 0);
        match fs::read_exact_or_eof_at(basis, &mut buffer, at) {
            Ok(read) if read == wanted => {}
            // A whole transfer does without it.
            _ => return Ok(false),
        }
        write_at(place, written, &buffer, at, old).map_err(failed)?;
        at += wanted as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_grow_together_and_are_taken_in_pieces() {
        let mut runs = Runs::default();
        for start in [0, 20, 10, 50, 40] {
            runs.add(start..start + 10);
        }
        assert_eq!(runs.by_start.iter().map(|(start, end)| (*start, *end)).collect::<Vec<_>>(), [(0, 30), (40, 60)]);
        assert_eq!(runs.bytes, 50);
        let mut taken = Vec::new();
        while let Some(run) = runs.take(25) {
            taken.push(run);
        }
        assert_eq!(taken, [0..25, 25..30, 40..60]);
        assert_eq!(runs.bytes, 0);
    }

    proptest::proptest! {
        #[test]
        fn runs_hold_exactly_what_was_added(mut order in proptest::sample::subsequence((0..64u64).collect::<Vec<_>>(), 0..64), seed in 0..1000u64) {
            let expected: std::collections::BTreeSet<u64> = order.iter().copied().collect();
            let length = order.len().max(1) as u64;
            order.sort_by_key(|number| (number * 7919 + seed) % length);
            let mut runs = Runs::default();
            for number in order {
                runs.add(number * 3..number * 3 + 3);
            }
            let mut there = std::collections::BTreeSet::new();
            while let Some(run) = runs.take(6) {
                for byte in run {
                    proptest::prop_assert!(expected.contains(&(byte / 3)) && there.insert(byte));
                }
            }
            proptest::prop_assert_eq!(there.len(), expected.len() * 3);
            proptest::prop_assert_eq!(runs.bytes, 0);
        }
    }
}
