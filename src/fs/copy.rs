//! Content: positioned reads and writes that are complete, and whole files copied within this machine.

use std::fs::File;
use std::io;

use rustix::io::Errno;

use super::dir::metadata_of;
use super::sparse::{data_ranges, write_sparse_at};
use crate::limits;

/// Bytes of one `copy_file_range`: progress and a wish to stop are seen this often.
const KERNEL_COPY_BYTES: u64 = 64 << 20;

/// Writes all of `bytes` at `offset`; short writes and interruptions are gone on from.
pub fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Fills `buffer` from `offset` on. The number of bytes is smaller only where the file ended.
pub fn read_exact_or_eof_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(filled)
}

/// Copies the first `length` bytes of `source` into `destination`, which is empty. The number of bytes copied is
/// smaller than `length` only where the source ended before.
///
/// A whole file is shared (reflink) where the file system can do that, so holes stay holes. Otherwise, with `sparse`,
/// holes and aligned blocks of zeros become holes; without, what reads as zeros is written as zeros, wherever the file
/// system's own copying does so.
///
/// `on_progress` gets the number of bytes done since its last call, at least every 64 MiB; its error ends the copy.
pub fn copy_file_data(
    source: &File,
    destination: &File,
    length: u64,
    sparse: bool,
    on_progress: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<u64> {
    if length == 0 {
        return Ok(0);
    }
    if length >= limits::SMALL_FILE_BYTES_MAX && share_whole(source, destination, length)? {
        on_progress(length)?;
        return Ok(length);
    }
    if sparse {
        return copy_sparse(source, destination, length, on_progress);
    }
    copy_in_kernel(source, destination, length, on_progress)
}

/// Copies `range` of `source` to the same place in `destination` without reading it here, shared (reflink) where the
/// file system can do that. Returns where it ended: before the end of `range` where the kernel can go no further, so
/// that reading tells why.
pub fn copy_range_in_kernel(source: &File, destination: &File, range: std::ops::Range<u64>) -> io::Result<u64> {
    let mut done = range.start;
    while done < range.end {
        let (mut from, mut to) = (done, done);
        let wanted = usize::try_from((range.end - done).min(KERNEL_COPY_BYTES)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, Some(&mut from), destination, Some(&mut to), wanted) {
            Ok(0) => break,
            Ok(count) => done += count as u64,
            Err(Errno::INTR) => {}
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => return Err(errno.into()),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// A reflink of the whole file; false where that cannot be.
fn share_whole(source: &File, destination: &File, length: u64) -> io::Result<bool> {
    if metadata_of(source)?.size != length {
        return Ok(false);
    }
    if rustix::fs::ioctl_ficlone(destination, source).is_err() {
        return Ok(false);
    }
    // The file may have changed its length between the look and the clone.
    if metadata_of(destination)?.size == length {
        return Ok(true);
    }
    rustix::fs::ftruncate(destination, 0)?;
    Ok(false)
}

fn copy_in_kernel(
    source: &File,
    destination: &File,
    length: u64,
    on_progress: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<u64> {
    let mut done = 0;
    while done < length {
        let (mut from, mut to) = (done, done);
        let wanted = usize::try_from((length - done).min(KERNEL_COPY_BYTES)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, Some(&mut from), destination, Some(&mut to), wanted) {
            Ok(0) => {
                // The end, or one of the file systems that answer 0 for files they cannot copy: reading tells.
                return copy_by_reading(source, destination, done..length, on_progress);
            }
            Ok(count) => {
                done += count as u64;
                on_progress(count as u64)?;
            }
            Err(Errno::INTR) => {}
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => return Err(errno.into()),
            // Another file system, or none that can, or a call that does not exist here. A true failure of the disk
            // comes again.
            Err(_) => return copy_by_reading(source, destination, done..length, on_progress),
        }
    }
    Ok(done)
}

/// Copies `range` and returns where it ended: the end of `range`, or that of the file.
fn copy_by_reading(
    source: &File,
    destination: &File,
    range: std::ops::Range<u64>,
    on_progress: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<u64> {
    let mut buffer = Vec::new();
    copy_range(source, range, &mut buffer, on_progress, &mut |bytes, offset| write_all_at(destination, bytes, offset))
}

fn copy_sparse(
    source: &File,
    destination: &File,
    length: u64,
    on_progress: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<u64> {
    let mut buffer = Vec::new();
    let mut done = 0;
    let mut ended = false;
    for range in data_ranges(source, length) {
        let range = range?;
        if range.start > done {
            on_progress(range.start - done)?;
        }
        let end = range.end;
        let mut write = |bytes: &[u8], offset| write_sparse_at(destination, bytes, offset);
        done = copy_range(source, range, &mut buffer, on_progress, &mut write)?;
        if done < end {
            // It has shrunk meanwhile, perhaps to before this range.
            done = done.min(metadata_of(source)?.size);
            ended = true;
            break;
        }
    }
    if !ended && done < length {
        // A hole up to `length`, unless the file ends within it.
        let end = metadata_of(source)?.size.min(length);
        if end > done {
            on_progress(end - done)?;
            done = end;
        }
    }
    rustix::fs::ftruncate(destination, done)?;
    Ok(done)
}

/// Reads `range` piece by piece into `write` and returns where it ended: the end of `range`, or that of the file.
fn copy_range(
    source: &File,
    range: std::ops::Range<u64>,
    buffer: &mut Vec<u8>,
    on_progress: &mut dyn FnMut(u64) -> io::Result<()>,
    write: &mut dyn FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<u64> {
    let chunk_bytes = (range.end - range.start).min(limits::COPY_CHUNK_BYTES as u64) as usize;
    if buffer.len() < chunk_bytes {
        buffer.resize(chunk_bytes, 0);
    }
    let mut offset = range.start;
    while offset < range.end {
        let wanted = (range.end - offset).min(chunk_bytes as u64) as usize;
        let count = read_exact_or_eof_at(source, &mut buffer[..wanted], offset)?;
        write(&buffer[..count], offset)?;
        offset += count as u64;
        if count > 0 {
            on_progress(count as u64)?;
        }
        if count < wanted {
            break;
        }
    }
    Ok(offset)
}
