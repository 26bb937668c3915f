//! A delta from end to end: basis and new content from the input, signatures and instructions over their encoded forms.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::delta::{
    BasisIndex, MatchState, Segment, WindowSignature, apply, decode_instructions, encode_instructions, match_segment,
    signature_of,
};
use xfer::limits;
use xfer_fuzz::Input;

/// Content of some length from a few bytes of input: runs, noise, and bytes of the input itself.
fn content(input: &mut Input<'_>, basis: &[u8]) -> Vec<u8> {
    const CONTENT_BYTES_MAX: usize = 128 << 10;
    let mut content = Vec::new();
    for _ in 0..input.u8() % 16 {
        let count = usize::from(input.u16());
        match input.u8() % 5 {
            0 => content.resize(content.len() + count, 0),
            1 => content.resize(content.len() + count, input.u8()),
            2 => {
                let mut state = u64::from(input.u8()) | 1;
                content.extend((0..count).map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                }));
            }
            3 => {
                let start = usize::from(input.u16()) * 4;
                content.extend(basis.iter().skip(start).take(count));
            }
            _ => {
                let bytes = input.part();
                content.extend_from_slice(bytes);
            }
        }
        if content.len() >= CONTENT_BYTES_MAX {
            content.truncate(CONTENT_BYTES_MAX);
            break;
        }
    }
    content
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let block_bytes = limits::DELTA_BLOCK_BYTES_MIN << (input.u8() % 4);
    let segment_bytes = 4096 + usize::from(input.u16());
    let basis = content(&mut input, &[]);
    let new = content(&mut input, &basis);

    let mut index = BasisIndex::new(basis.len() as u64, block_bytes).expect("a block length");
    for (number, window) in basis.chunks(limits::DELTA_WINDOW_BYTES as usize).enumerate() {
        let signature = signature_of(number as u64 * limits::DELTA_WINDOW_BYTES, window, block_bytes);
        let mut encoded = Vec::new();
        signature.encode(&mut encoded);
        let decoded = WindowSignature::decode(&encoded).expect("a signature");
        assert_eq!(decoded, signature);
        index.insert(decoded).expect("a window of the basis");
    }
    let state = MatchState::new();
    let mut rebuilt = Vec::new();
    for start in (0..new.len()).step_by(segment_bytes) {
        let end = new.len().min(start + segment_bytes);
        let segment = Segment { data: &new, range: start..end, offset: start as u64 };
        let found = match_segment(&segment, &index, &state);
        let mut encoded = Vec::new();
        encode_instructions(&found.instructions, &new[start..end], &mut encoded);
        let instructions = decode_instructions(&encoded, end - start).expect("instructions");
        apply(&instructions, &encoded, &basis[..], basis.len() as u64, end - start, &mut rebuilt).expect("a segment");
    }
    assert!(rebuilt == new, "a file of {} bytes was rebuilt differently", new.len());
});
