//! Holes: where a file has data, and writing without filling them.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::copy::write_all_at;
use super::dir::metadata_of;

/// Unit of a hole: the block of nearly every file system. Smaller runs of zeros save nothing.
const HOLE_BYTES: usize = 4096;

/// `f_type` of ZFS.
const ZFS_SUPER_MAGIC: u64 = 0x2fc1_2fc1;

/// The ranges of a file's first `length` bytes that hold data, ascending, neither empty nor touching. What lies
/// between reads as zeros. One range over all where the file is dense or the file system cannot tell.
///
/// Uses the description's seek position, so nothing else may rely on it.
pub fn data_ranges(file: &File, length: u64) -> DataRanges<'_> {
    DataRanges { file, offset: 0, length, state: State::Unknown }
}

/// See [`data_ranges`].
#[derive(Debug)]
pub struct DataRanges<'a> {
    file: &'a File,
    offset: u64,
    length: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    Seeking,
    Dense,
}

impl DataRanges<'_> {
    /// Whether it pays, and is safe, to ask for holes.
    fn look(&self) -> io::Result<State> {
        let metadata = metadata_of(self.file)?;
        if metadata.blocks.saturating_mul(512) >= metadata.size.min(self.length) {
            return Ok(State::Dense);
        }
        // ZFS before 2.1.14 and 2.2.2 could tell data that was just written as a hole: bytes lost without a word.
        let is_zfs = rustix::fs::fstatfs(self.file).is_ok_and(|stat| stat.f_type as u64 == ZFS_SUPER_MAGIC);
        Ok(if is_zfs { State::Dense } else { State::Seeking })
    }

    fn seek(&mut self) -> io::Result<Option<Range<u64>>> {
        if self.offset >= self.length {
            return Ok(None);
        }
        if self.state == State::Unknown {
            self.state = self.look()?;
        }
        if self.state == State::Dense {
            return Ok(Some(self.take(self.offset, self.length)));
        }
        let start = match rustix::fs::seek(self.file, SeekFrom::Data(self.offset)) {
            Ok(start) if start >= self.length => return Ok(None),
            Ok(start) => start.max(self.offset),
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOTTY | Errno::NOSYS) => {
                return Ok(Some(self.take(self.offset, self.length)));
            }
            Err(errno) => return Err(errno.into()),
        };
        let end = match rustix::fs::seek(self.file, SeekFrom::Hole(start)) {
            Ok(end) if end > start => end.min(self.length),
            // The file has just shrunk below `start`, or was filled meanwhile: reading will tell.
            Ok(_) | Err(Errno::NXIO) => self.length,
            Err(errno) => return Err(errno.into()),
        };
        Ok(Some(self.take(start, end)))
    }

    fn take(&mut self, start: u64, end: u64) -> Range<u64> {
        self.offset = end;
        start..end
    }
}

impl Iterator for DataRanges<'_> {
    type Item = io::Result<Range<u64>>;

    /// Ends after an error.
    fn next(&mut self) -> Option<io::Result<Range<u64>>> {
        let next = self.seek();
        if next.is_err() {
            self.offset = self.length;
        }
        next.transpose()
    }
}

/// Writes `bytes` at `offset` into a file that holds nothing there yet, leaving out aligned blocks of zeros. The
/// caller sets the file's length at the end: a hole there makes none.
pub fn write_sparse_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    // What precedes the first block boundary is a block of its own, as is a short one at the end.
    let head_bytes = (HOLE_BYTES - (offset % HOLE_BYTES as u64) as usize) % HOLE_BYTES;
    let (head, body) = bytes.split_at(head_bytes.min(bytes.len()));
    let blocks = std::iter::once(head).filter(|head| !head.is_empty()).chain(body.chunks(HOLE_BYTES));
    let mut position = 0;
    let mut pending = 0;
    for block in blocks {
        if is_all_zero(block) {
            if pending < position {
                write_all_at(file, &bytes[pending..position], offset + pending as u64)?;
            }
            pending = position + block.len();
        }
        position += block.len();
    }
    if pending < position {
        write_all_at(file, &bytes[pending..], offset + pending as u64)?;
    }
    Ok(())
}

/// Whether all bytes are zero. Looks at the first bytes by themselves: dense data mostly ends there.
fn is_all_zero(block: &[u8]) -> bool {
    let (head, tail) = block.split_at(block.len().min(16));
    head.iter().all(|&byte| byte == 0) && tail.chunks(512).all(|part| part.iter().fold(0, |or, &byte| or | byte) == 0)
}
