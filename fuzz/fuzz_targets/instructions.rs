//! Instructions for one segment, applied against a small basis.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::delta::{apply, decode_instructions, encode_instructions};
use xfer::limits;
use xfer_fuzz::{Input, bounded};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    // Up to one byte more than a segment may have.
    let segment_bytes = input.u32() as usize % (limits::SEGMENT_BYTES as usize + 2);
    let basis_bytes = usize::from(input.u16());
    let claimed_bytes = basis_bytes as u64 + u64::from(input.u8());
    let encoded = input.rest();
    let Ok(instructions) = bounded(encoded.len(), || decode_instructions(encoded, segment_bytes)) else { return };
    assert!(instructions.len() <= limits::DELTA_INSTRUCTIONS_MAX);
    assert_eq!(instructions.iter().map(|one| one.output_bytes()).sum::<usize>(), segment_bytes);
    let mut again = Vec::new();
    encode_instructions(&instructions, encoded, &mut again);
    assert_eq!(again, encoded, "instructions have a second form");

    let basis: Vec<u8> = (0..basis_bytes).map(|at| (at % 251) as u8).collect();
    let before = b"before".to_vec();
    let mut out = before.clone();
    match apply(&instructions, encoded, &basis[..], claimed_bytes, segment_bytes, &mut out) {
        Ok(()) => assert_eq!(out.len(), before.len() + segment_bytes),
        Err(_) => assert_eq!(out, before),
    }
    assert!(out.starts_with(&before));
});
