//! Compressed content, whatever was declared of it, and content there and back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::limits;
use xfer::plan::options::Compression;
use xfer::sync::{Compressor, Decompressor};
use xfer::wire::Encoding;
use xfer_fuzz::{Input, bounded_by};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let choice = input.u8();
    let declared = input.u32() as usize % (limits::FRAME_BYTES_MAX + 1);
    let bytes = input.rest();
    let encoding = [Encoding::Raw, Encoding::Zstd, Encoding::Lz4][usize::from(choice % 3)];
    let mut decompressor = Decompressor::default();
    // The output, and little besides: never what the bytes themselves claim.
    bounded_by(declared as u64 * 2 + 4096, || {
        if let Some(content) = decompressor.decode(bytes, encoding, declared) {
            assert_eq!(content.len(), declared);
        }
    });
    let how = if choice & 0x80 == 0 { Compression::Zstd { level: None } } else { Compression::Lz4 };
    let mut compressor = Compressor::default();
    let (encoding, encoded) = compressor.encode(bytes, Some(how));
    assert!(encoded.len() <= bytes.len());
    assert_eq!(decompressor.decode(encoded, encoding, bytes.len()), Some(bytes));
    assert_eq!(decompressor.decode(encoded, encoding, bytes.len() + 1), None);
});
