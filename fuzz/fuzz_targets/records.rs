//! The records of a data frame, with their content decoded as a receiver does it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::limits;
use xfer::sync::Decompressor;
use xfer::wire::{DataRecord, RecordReader};
use xfer_fuzz::bounded_by;

fuzz_target!(|data: &[u8]| {
    let mut records = Vec::new();
    let mut reader = RecordReader::new(data);
    // Records borrow from their frame.
    while let Ok(Some(record)) = bounded_by(0, || reader.next()) {
        records.push(record);
    }
    let mut again = Vec::new();
    for (key, record) in &records {
        record.encode(*key, &mut again);
    }
    assert!(data.starts_with(&again), "a record has a second form");

    let mut decompressor = Decompressor::default();
    for (_, record) in &records {
        let (bytes, encoding, length) = match record {
            DataRecord::Small { content, bytes, encoding, .. } if content.size <= limits::SMALL_FILE_BYTES_MAX => {
                (bytes, encoding, content.size as usize)
            }
            DataRecord::Segment { bytes, encoding, .. } => (bytes, encoding, limits::SEGMENT_BYTES as usize),
            DataRecord::Patch { bytes, encoding, decoded_bytes, .. } => (bytes, encoding, *decoded_bytes as usize),
            _ => continue,
        };
        if let Some(content) = decompressor.decode(bytes, *encoding, length) {
            assert_eq!(content.len(), length);
        }
    }
});
