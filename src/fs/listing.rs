//! The names of one directory, packed: it may hold a million.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::RawDir;
use rustix::io::Errno;

use super::dir::known_kind;
use crate::model::Kind;

/// Bytes of one `getdents64`. Two calls for a directory of up to about 2000 entries; below malloc's mmap threshold.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// Bits of [`Slot::length_and_kind`] that hold the length. Linux resolves no component longer than `PATH_MAX`.
const LENGTH_BITS: u32 = 12;
const LENGTH_MASK: u16 = (1 << LENGTH_BITS) - 1;

/// Where a name lies. Packed to 6 bytes.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Slot {
    offset: u32,
    length_and_kind: u16,
}

/// All names of a directory, sorted by raw bytes, each once. Names that are no valid [`crate::model::Name`] (longer
/// than 255 bytes on a foreign file system) are among them: the caller tells.
#[derive(Default)]
pub struct NameList {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
}

impl std::fmt::Debug for NameList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.iter().map(|(name, kind)| (crate::model::display_bytes(name), kind));
        f.debug_list().entries(shown).finish()
    }
}

impl NameList {
    /// Reads from the descriptor's position to the end.
    pub(super) fn read(fd: BorrowedFd<'_>) -> io::Result<NameList> {
        let mut list = NameList { bytes: Vec::new(), slots: Vec::new() };
        let mut buffer: Vec<u8> = Vec::with_capacity(READ_BUFFER_BYTES);
        let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => list.push(entry.file_name().to_bytes(), known_kind(entry.file_type()))?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        list.finish();
        Ok(list)
    }

    fn push(&mut self, name: &[u8], kind: Option<Kind>) -> io::Result<()> {
        if name == b"." || name == b".." {
            return Ok(());
        }
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "directory too large to be listed");
        // A name from a broken file system; nothing could be done with it.
        if name.is_empty() || name.len() > usize::from(LENGTH_MASK) || name.contains(&b'/') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file system lists a malformed name"));
        }
        let offset = u32::try_from(self.bytes.len()).map_err(|_| too_large())?;
        let kind_code = kind.map_or(0, |kind| 1 + kind as u16);
        self.bytes.extend_from_slice(name);
        self.slots.push(Slot { offset, length_and_kind: name.len() as u16 | (kind_code << LENGTH_BITS) });
        Ok(())
    }

    /// Sorts, and drops twins: a directory that changes while it is read may give a name twice.
    fn finish(&mut self) {
        let bytes = &self.bytes;
        self.slots.sort_unstable_by(|a, b| name_at(bytes, *a).cmp(name_at(bytes, *b)));
        self.slots.dedup_by(|a, b| name_at(bytes, *a) == name_at(bytes, *b));
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether the directory is empty.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Name number `index`, with its kind where the file system tells it in its listings (not all do, and it may have
    /// changed since). Panics beyond the end, as a slice does.
    pub fn get(&self, index: usize) -> (&[u8], Option<Kind>) {
        let slot = self.slots[index];
        let kind_code = slot.length_and_kind >> LENGTH_BITS;
        let kind = usize::from(kind_code).checked_sub(1).and_then(|code| Kind::ALL.get(code).copied());
        (name_at(&self.bytes, slot), kind)
    }

    /// All, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Option<Kind>)> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Index of the first name that comes after `name`.
    pub fn position_after(&self, name: &[u8]) -> usize {
        self.slots.partition_point(|&slot| name_at(&self.bytes, slot) <= name)
    }

    /// Where `name` is.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.slots.binary_search_by(|&slot| name_at(&self.bytes, slot).cmp(name)).ok()
    }
}

fn name_at(bytes: &[u8], slot: Slot) -> &[u8] {
    let start = slot.offset as usize;
    &bytes[start..start + usize::from(slot.length_and_kind & LENGTH_MASK)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_takes_six_bytes() {
        assert_eq!(size_of::<Slot>(), 6);
    }

    #[test]
    fn names_are_sorted_by_raw_bytes_and_told_once() {
        let mut list = NameList { bytes: Vec::new(), slots: Vec::new() };
        for name in [&b"b"[..], b".", b"a.b", b"\xff", b"a", b"..", b"ab", b"b", b"..."] {
            list.push(name, Some(Kind::Socket)).unwrap();
        }
        list.push(b"u", known_kind(rustix::fs::FileType::Unknown)).unwrap();
        list.finish();
        let names: Vec<&[u8]> = list.iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"..."[..], b"a", b"a.b", b"ab", b"b", b"u", b"\xff"]);
        assert_eq!(list.get(0).1, Some(Kind::Socket));
        assert_eq!(list.get(5).1, None);
        assert_eq!(list.find(b"ab"), Some(3));
        assert_eq!(list.find(b"aa"), None);
        for kind in Kind::ALL {
            let mut list = NameList { bytes: Vec::new(), slots: Vec::new() };
            list.push(b"x", Some(kind)).unwrap();
            assert_eq!(list.get(0), (&b"x"[..], Some(kind)));
        }
    }

    #[test]
    fn malformed_names_of_a_file_system_are_an_error() {
        let mut list = NameList { bytes: Vec::new(), slots: Vec::new() };
        assert!(list.push(b"", None).is_err());
        assert!(list.push(b"a/b", None).is_err());
        assert!(list.push(&[b'x'; 5000], None).is_err());
        assert!(list.push(&[b'x'; 4000], None).is_ok());
    }
}
