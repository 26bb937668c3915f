//! The signature of one window, as the sender takes it and searches with it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::delta::{BasisIndex, MatchState, Segment, WindowSignature, match_segment};
use xfer::limits;
use xfer_fuzz::{Input, bounded};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let segment_bytes = usize::from(input.u16());
    let fill = input.u8();
    let encoded = input.rest();
    let Ok(signature) = bounded(encoded.len(), || WindowSignature::decode(encoded)) else { return };
    let mut again = Vec::new();
    signature.encode(&mut again);
    assert_eq!(again, encoded, "a signature has a second form");
    assert!(u64::from(signature.length()) <= limits::DELTA_WINDOW_BYTES);

    let length = signature.offset() + u64::from(signature.length());
    let mut basis = BasisIndex::new(length, signature.block_bytes()).expect("the block length was checked");
    basis.insert(signature.clone()).expect("the window is the last one of such a basis");
    assert!(basis.covers(signature.offset(), u64::from(signature.length())));

    let mut new = vec![fill; segment_bytes];
    let middle = segment_bytes / 2;
    for (byte, from) in new[middle..].iter_mut().zip(encoded) {
        *byte = *from;
    }
    let segment = Segment { data: &new, range: 0..new.len(), offset: signature.offset() };
    let found = match_segment(&segment, &basis, &MatchState::new());
    assert_eq!(found.instructions.iter().map(|one| one.output_bytes()).sum::<usize>(), new.len());
    assert!(found.instructions.len() <= limits::DELTA_INSTRUCTIONS_MAX);
    // Work is bounded by what there is to match, whatever the sums claim.
    let falsely = u64::from(limits::DELTA_FALSE_MATCHES_MAX + 1) * u64::from(limits::DELTA_BLOCK_BYTES_MAX) * 2;
    assert!(found.hashed_bytes <= 4 * new.len() as u64 + falsely, "{found:?}");
    assert!(found.searched_bytes <= 4 * new.len() as u64 + falsely, "{found:?}");
});
