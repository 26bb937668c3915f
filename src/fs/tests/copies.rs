//! Holes, and copies of files that have them.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::*;

const MIB: u64 = 1 << 20;

fn ranges(file: &File, length: u64) -> Vec<(u64, u64)> {
    data_ranges(file, length).map(Result::unwrap).map(|range| (range.start, range.end)).collect()
}

/// 16 MiB: 1 MiB of data, a hole, 1 MiB at 8 MiB of which the upper half are zeros, a hole to the end.
fn holey(place: &Place, label: &str) -> File {
    let file = place.dir.create_file(&name(label), 0o600).unwrap();
    file.set_len(16 * MIB).unwrap();
    file.write_all_at(&vec![7; MIB as usize], 0).unwrap();
    file.write_all_at(&vec![8; MIB as usize / 2], 8 * MIB).unwrap();
    file.write_all_at(&vec![0; MIB as usize / 2], 8 * MIB + MIB / 2).unwrap();
    file
}

#[test]
fn holes_are_found() {
    for place in places() {
        let file = holey(&place, "f");
        assert_eq!(ranges(&file, 16 * MIB), [(0, MIB), (8 * MIB, 9 * MIB)]);
        assert_eq!(ranges(&file, 8 * MIB + 5), [(0, MIB), (8 * MIB, 8 * MIB + 5)]);
        assert_eq!(ranges(&file, 8 * MIB), [(0, MIB)]);
        assert_eq!(ranges(&file, 0), []);
        file.set_len(2 * MIB).unwrap();
        assert_eq!(ranges(&file, 16 * MIB), [(0, MIB)]);
        let empty = place.dir.create_file(&name("hole"), 0o600).unwrap();
        empty.set_len(MIB).unwrap();
        assert_eq!(ranges(&empty, MIB), []);
        let dense = place.dir.create_file(&name("dense"), 0o600).unwrap();
        dense.write_all_at(&[1; 10_000], 0).unwrap();
        assert_eq!(ranges(&dense, 10_000), [(0, 10_000)]);
        assert_eq!(ranges(&dense, 100), [(0, 100)]);
    }
}

#[test]
fn sparse_copies_take_no_room_for_zeros() {
    for place in places() {
        let source = holey(&place, "f");
        for sparse in [true, false] {
            let copy = place.dir.create_file(&name(&format!("copy-{sparse}")), 0o600).unwrap();
            let mut told = 0;
            let copied = copy_file_data(&source, &copy, 16 * MIB, sparse, &mut |bytes| {
                told += bytes;
                Ok(())
            });
            assert_eq!((copied.unwrap(), told), (16 * MIB, 16 * MIB));
            let metadata = metadata_of(&copy).unwrap();
            assert_eq!(metadata.size, 16 * MIB);
            let used = metadata.blocks * 512;
            // A file system that shares data keeps holes as they are: without `sparse` too, and no further ones with it.
            assert!(!sparse || used <= metadata_of(&source).unwrap().blocks * 512, "{used}");
            assert!(
                std::fs::read(place.path("f")).unwrap()
                    == std::fs::read(place.path(&format!("copy-{sparse}"))).unwrap()
            );
        }
    }
}

#[test]
fn sparse_copies_of_files_that_shrank_end_where_they_do() {
    for place in places() {
        let source = holey(&place, "f");
        for (size, expected) in [(12 * MIB, 12 * MIB), (4 * MIB, 4 * MIB), (MIB / 2, MIB / 2), (0, 0)] {
            source.set_len(size).unwrap();
            let copy = place.dir.create_file(&name(&format!("copy-{size}")), 0o600).unwrap();
            let copied = copy_file_data(&source, &copy, 16 * MIB, true, &mut |_| Ok(())).unwrap();
            assert_eq!((copied, metadata_of(&copy).unwrap().size), (expected, expected));
        }
    }
}

#[test]
fn a_copy_ends_when_told_so() {
    let place = place_in("/dev/shm");
    let source = holey(&place, "f");
    for sparse in [true, false] {
        let copy = place.dir.create_file(&name(&format!("copy-{sparse}")), 0o600).unwrap();
        let stop = &mut |_| Err(std::io::ErrorKind::Interrupted.into());
        assert!(copy_file_data(&source, &copy, 16 * MIB, sparse, stop).is_err());
    }
}

#[test]
fn files_that_lie_about_their_length_are_read() {
    // On /proc, copy_file_range says 0 or refuses, and the length is 0.
    let source = File::open("/proc/self/mountinfo").unwrap();
    let place = place_in("/dev/shm");
    let copy = place.dir.create_file(&name("copy"), 0o600).unwrap();
    let copied = copy_file_data(&source, &copy, MIB, false, &mut |_| Ok(())).unwrap();
    assert!(copied > 0);
    assert_eq!(std::fs::read(place.path("copy")).unwrap(), std::fs::read("/proc/self/mountinfo").unwrap());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever is written where, in whatever pieces: it reads back as it was.
    #[test]
    fn sparse_writes_read_back(
        runs in proptest::collection::vec((proptest::bool::ANY, 1usize..10_000), 1..12),
        pieces in proptest::collection::vec(1usize..20_000, 1..8),
    ) {
        let content: Vec<u8> = runs
            .iter()
            .flat_map(|&(is_zero, length)| std::iter::repeat_n(if is_zero { 0 } else { 0xa5 }, length))
            .collect();
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let mut offset = 0;
        for &piece in pieces.iter().cycle() {
            let end = (offset + piece).min(content.len());
            write_sparse_at(&file, &content[offset..end], offset as u64).unwrap();
            offset = end;
            if offset == content.len() {
                break;
            }
        }
        file.set_len(content.len() as u64).unwrap();
        let mut found = vec![1; content.len() + 1];
        let count = read_exact_or_eof_at(&file, &mut found, 0).unwrap();
        proptest::prop_assert!(found[..count] == content[..]);
    }
}

#[test]
fn aligned_zeros_are_not_written() {
    for place in places() {
        let file = place.dir.create_file(&name("f"), 0o600).unwrap();
        let mut bytes = vec![0; 3 * MIB as usize];
        bytes[MIB as usize + 5000] = 1;
        write_sparse_at(&file, &bytes[100..], 100).unwrap();
        file.set_len(3 * MIB).unwrap();
        // One block of the file system, whatever its size.
        let blocks = metadata_of(&file).unwrap().blocks;
        assert!((8..=128).contains(&blocks), "{blocks}");
    }
}
