//! `--inplace`: a file is made equal where it is; only what differs is written.

use std::fs::File;
use std::io;

use crate::fs;
use crate::limits;

/// Bytes compared and written at a time: a page of most databases, so that one changed page is one write.
const PATCH_BYTES: usize = 16 << 10;

/// Makes the first `length` bytes of `destination` those of `source`, and cuts it there. Returns the bytes that the
/// source really had.
pub(super) fn patch(
    source: &File,
    destination: &File,
    length: u64,
    on_progress: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<u64> {
    let mut new = vec![0; limits::COPY_CHUNK_BYTES];
    let mut old = vec![0; limits::COPY_CHUNK_BYTES];
    let mut offset = 0;
    while offset < length {
        let wanted = (length - offset).min(limits::COPY_CHUNK_BYTES as u64) as usize;
        let read = fs::read_exact_or_eof_at(source, &mut new[..wanted], offset)?;
        write_differences(destination, &new[..read], &mut old, offset)?;
        on_progress(read as u64)?;
        offset += read as u64;
        if read < wanted {
            break;
        }
    }
    destination.set_len(offset)?;
    Ok(offset)
}

/// Writes those blocks of `new` that the file does not have at `offset`; the number of bytes written. `old` is room to
/// read into, at least as long as `new`.
pub(super) fn write_differences(file: &File, new: &[u8], old: &mut [u8], offset: u64) -> io::Result<u64> {
    let there = fs::read_exact_or_eof_at(file, &mut old[..new.len()], offset)?;
    let mut written = 0;
    let mut start = 0;
    while start < new.len() {
        let end = (start + PATCH_BYTES).min(new.len());
        if end > there || new[start..end] != old[start..end] {
            fs::write_all_at(file, &new[start..end], offset + start as u64)?;
            written += (end - start) as u64;
        }
        start = end;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let (source, destination) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut content = vec![7; 3 * limits::COPY_CHUNK_BYTES + 100];
        fs::write_all_at(&destination, &content, 0).unwrap();
        fs::write_all_at(&destination, b"and a tail", content.len() as u64).unwrap();
        content[2 * limits::COPY_CHUNK_BYTES] = 1;
        fs::write_all_at(&source, &content, 0).unwrap();
        let mut old = vec![0; content.len()];
        assert_eq!(write_differences(&destination, &content, &mut old, 0).unwrap(), PATCH_BYTES as u64);
        let copied = patch(&source, &destination, content.len() as u64, &mut |_| Ok(())).unwrap();
        assert_eq!(copied, content.len() as u64);
        let mut there = vec![0; content.len() + 100];
        assert_eq!(fs::read_exact_or_eof_at(&destination, &mut there, 0).unwrap(), content.len());
        assert_eq!(&there[..content.len()], &content[..]);
    }
}
