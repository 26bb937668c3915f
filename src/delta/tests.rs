//! The room as a whole: describe, match, rebuild.

use proptest::prelude::*;

use super::*;
use crate::model::segment_digest;
use blake3::hazmat::HasherExt;

const SEGMENT: usize = limits::SEGMENT_BYTES as usize;
const BLOCK: usize = 16 << 10;
const MIB: usize = 1 << 20;

/// Bytes without any pattern, the same for the same seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

#[derive(Debug, Default)]
struct Cost {
    literal_bytes: u64,
    hashed_bytes: u64,
    searched_bytes: u64,
    copies: usize,
}

/// Takes `new` through the whole room with `basis`, over the encoded forms, and checks that it comes out.
fn transfer(basis: &[u8], new: &[u8], block_bytes: u32, surroundings: usize) -> Cost {
    let mut index = BasisIndex::new(basis.len() as u64, block_bytes).unwrap();
    for (number, window) in basis.chunks(limits::DELTA_WINDOW_BYTES as usize).enumerate() {
        let signature = signature_of(number as u64 * limits::DELTA_WINDOW_BYTES, window, block_bytes);
        let mut encoded = Vec::new();
        signature.encode(&mut encoded);
        assert!(encoded.len() < limits::FRAME_BYTES_MAX / 16);
        let decoded = WindowSignature::decode(&encoded).unwrap();
        assert_eq!(decoded, signature);
        index.insert(decoded).unwrap();
    }
    assert!(index.covers(0, u64::MAX));
    let state = MatchState::new();
    let mut cost = Cost::default();
    let mut rebuilt = Vec::new();
    for (number, segment) in new.chunks(SEGMENT).enumerate() {
        let start = number * SEGMENT;
        let from = start.saturating_sub(surroundings);
        let to = (start + segment.len() + surroundings).min(new.len());
        let view =
            Segment { data: &new[from..to], range: start - from..start - from + segment.len(), offset: start as u64 };
        let matched = match_segment(&view, &index, &state);
        let mut encoded = Vec::new();
        encode_instructions(&matched.instructions, segment, &mut encoded);
        assert!(encoded.len() <= segment.len() + 16);
        let decoded = decode_instructions(&encoded, segment.len()).unwrap();
        let end = rebuilt.len();
        apply(&decoded, &encoded, basis, basis.len() as u64, segment.len(), &mut rebuilt).unwrap();
        assert_eq!(segment_digest(&rebuilt[end..]), segment_digest(segment));
        cost.literal_bytes += matched.literal_bytes;
        cost.hashed_bytes += matched.hashed_bytes;
        cost.searched_bytes += matched.searched_bytes;
        cost.copies += matched.instructions.iter().filter(|step| matches!(step, Instruction::Copy { .. })).count();
    }
    assert!(rebuilt == new);
    cost
}

fn over(basis: &[u8], new: &[u8]) -> Cost {
    transfer(basis, new, BLOCK as u32, BLOCK)
}

#[test]
fn block_sizes_are_in_bounds() {
    for length in [0, 1, 1 << 20, 1 << 38, (1 << 38) + 1, u64::MAX] {
        let block = block_bytes_for(length);
        assert!(block.is_power_of_two());
        assert!((limits::DELTA_BLOCK_BYTES_MIN..=limits::DELTA_BLOCK_BYTES_MAX).contains(&block));
        assert_eq!(limits::SEGMENT_BYTES % u64::from(block), 0);
    }
}

#[test]
fn equal_files_cost_one_hash_and_no_search() {
    let basis = noise(1, 9 * MIB + 777);
    let cost = over(&basis, &basis);
    assert_eq!((cost.literal_bytes, cost.searched_bytes), (0, 0));
    assert_eq!(cost.hashed_bytes, basis.len() as u64);
    assert_eq!(cost.copies, basis.len().div_ceil(SEGMENT));
}

#[test]
fn changed_pages_cost_themselves() {
    let basis = noise(1, 32 * MIB);
    let mut new = basis.clone();
    let pages = basis.len() / BLOCK;
    let changed: Vec<_> = (0..pages / 100).map(|index| (index * 7919 + 13) % pages).collect();
    for &page in &changed {
        new[page * BLOCK..(page + 1) * BLOCK].copy_from_slice(&noise(100 + page as u64, BLOCK));
    }
    let cost = over(&basis, &new);
    assert_eq!(cost.literal_bytes, (changed.len() * BLOCK) as u64);
    assert_eq!(cost.hashed_bytes, basis.len() as u64);
}

#[test]
fn a_shift_costs_what_was_inserted() {
    let basis = noise(1, 32 * MIB + 5000);
    for inserted in [1, 100, 70_001, 3 * MIB + 1] {
        let mut new = noise(2, inserted);
        new.extend_from_slice(&basis);
        let cost = over(&basis, &new);
        // The segment that the insertion ends in is not searched again, nor are pieces under two blocks.
        assert!(cost.literal_bytes <= (inserted + 3 * BLOCK) as u64, "{inserted}: {cost:?}");
        assert!(cost.searched_bytes <= (2 * inserted + 3 * MIB) as u64, "{inserted}: {cost:?}");
        assert!(cost.hashed_bytes <= (new.len() + inserted + new.len() / 8) as u64, "{inserted}: {cost:?}");
        let back = over(&new, &basis);
        assert!(back.literal_bytes <= 3 * BLOCK as u64, "{inserted}: {back:?}");
    }
}

#[test]
fn several_shifts_in_one_file_are_followed() {
    let basis = noise(1, 24 * MIB);
    let mut new = Vec::new();
    for (index, piece) in basis.chunks(5 * MIB + 333).enumerate() {
        new.extend_from_slice(&noise(50 + index as u64, 1000 + index));
        new.extend_from_slice(&piece[..piece.len() - 10 * index]);
    }
    let cost = over(&basis, &new);
    assert!(cost.literal_bytes < basis.len() as u64 / 50, "{cost:?}");
}

#[test]
fn a_shifted_file_with_changed_pages_costs_them_and_their_seams() {
    let basis = noise(1, 16 * MIB);
    let mut new = noise(2, 4097);
    new.extend_from_slice(&basis);
    for page in (0..16).map(|index| 5 + index * 60) {
        new[page * BLOCK..(page + 1) * BLOCK].copy_from_slice(&noise(100 + page as u64, BLOCK));
    }
    let cost = over(&basis, &new);
    assert!(cost.literal_bytes <= (16 * 2 + 3) * BLOCK as u64, "{cost:?}");
}

#[test]
fn unrelated_files_are_given_up_on() {
    let (basis, new) = (noise(1, 64 * MIB), noise(2, 64 * MIB));
    let cost = over(&basis, &new);
    assert_eq!(cost.literal_bytes, new.len() as u64);
    assert!(cost.hashed_bytes <= new.len() as u64 + MIB as u64);
    let probes = new.len() as u64 / limits::DELTA_PROBE_INTERVAL;
    assert!(cost.searched_bytes < 2 * (limits::DELTA_FRUITLESS_BYTES_MAX + probes), "{cost:?}");
}

#[test]
fn a_shift_behind_much_new_data_is_found_by_a_probe() {
    // Farther away than the search looks otherwise.
    let inserted = 2 * limits::DELTA_SEARCH_RADIUS_BYTES as usize + 11;
    let basis = noise(1, 24 * MIB);
    let mut new = noise(2, inserted);
    new.extend_from_slice(&basis);
    let cost = over(&basis, &new);
    let probe_distance = limits::DELTA_PROBE_INTERVAL as usize * SEGMENT;
    assert!(cost.literal_bytes <= (inserted + probe_distance + SEGMENT) as u64, "{cost:?}");
}

#[test]
fn zeros_and_repetition_keep_the_work_bounded() {
    let zeros = vec![0; 8 * MIB + 100];
    let dense = noise(3, 8 * MIB);
    for (basis, new) in [(&zeros, &zeros), (&dense, &zeros)] {
        assert_eq!(over(basis, new).literal_bytes, 0);
    }
    let block = noise(4, BLOCK);
    let repeated = block.repeat(8 * MIB / BLOCK);
    let mut shifted = vec![7; 1000];
    shifted.extend_from_slice(&repeated);
    // Bytes of one value nearly everywhere: weak sums of different blocks are close to each other.
    let mut thin_old = vec![0; 8 * MIB];
    let mut thin_new = vec![0; 8 * MIB];
    for at in (0..8 * MIB).step_by(1021) {
        thin_old[at] = 1;
        thin_new[(at * 31 + 7) % (8 * MIB)] = 1;
    }
    let text = b"the same line over and over again\n".repeat(8 * MIB / 34);
    let mut shifted_text = b"new\n".to_vec();
    shifted_text.extend_from_slice(&text);
    for (basis, new) in [(&repeated, &shifted), (&thin_old, &thin_new), (&text, &shifted_text)] {
        let cost = over(basis, new);
        assert!(cost.hashed_bytes <= 4 * new.len() as u64, "{cost:?}");
        assert!(cost.searched_bytes <= 6 * new.len() as u64, "{cost:?}");
    }
    assert!(over(&text, &shifted_text).literal_bytes < 4 * BLOCK as u64);
}

#[test]
fn windows_are_forgotten_and_checked() {
    let window = limits::DELTA_WINDOW_BYTES;
    let count = limits::DELTA_WINDOWS_HELD_MAX as u64 + 3;
    let mut index = BasisIndex::new(count * window + 5, BLOCK as u32).unwrap();
    let bytes = vec![1; window as usize];
    for number in 0..count {
        index.insert(signature_of(number * window, &bytes, BLOCK as u32)).unwrap();
    }
    assert!(!index.covers(2 * window, 1));
    assert!(index.covers(3 * window, (count - 3) * window));
    assert!(!index.covers(3 * window, u64::MAX));
    index.insert(signature_of(count * window, &bytes[..5], BLOCK as u32)).unwrap();
    assert!(index.covers(4 * window, u64::MAX));
    index.forget_before(9 * window + 1);
    assert!(!index.covers(8 * window, 2 * window));
    assert!(index.covers(9 * window, window));
    for bad in [0, 1, 2048, 16385, 64 << 10, u32::MAX] {
        assert!(BasisIndex::new(1, bad).is_err());
    }
    for bad in [
        signature_of(0, &bytes, 4096),
        signature_of(0, &bytes[..100], BLOCK as u32),
        signature_of(count * window, &bytes[..6], BLOCK as u32),
        signature_of((count + 1) * window, &bytes[..5], BLOCK as u32),
    ] {
        assert!(index.insert(bad).is_err());
    }
}

#[test]
fn hostile_instructions_are_refused() {
    let basis = noise(1, 100);
    let run = |instructions: &[Instruction], length| {
        let mut out = vec![9];
        let result = apply(instructions, b"lit", &basis[..], 100, length, &mut out);
        if result.is_err() {
            assert_eq!(out, [9]);
        }
        result
    };
    assert!(run(&[Instruction::Copy { basis_offset: 0, len: 100 }], 100).is_ok());
    assert!(run(&[Instruction::Zero { len: 9 }], 10).is_err());
    assert!(run(&[Instruction::Zero { len: usize::MAX }], 10).is_err());
    assert!(run(&[Instruction::Literal { range: 1..5 }], 4).is_err());
    assert!(run(&[Instruction::Zero { len: 2 }, Instruction::Copy { basis_offset: 1, len: 100 }], 102).is_err());
    assert!(run(&[Instruction::Copy { basis_offset: u64::MAX, len: 1 }], 1).is_err());
    let zeros = [2, 1].repeat(limits::DELTA_INSTRUCTIONS_MAX + 1);
    assert!(decode_instructions(&zeros, limits::DELTA_INSTRUCTIONS_MAX + 1).is_err());
    for bad in [&[2, 0][..], &[2, 5], &[3, 4], &[2, 0x84, 0], &[2], &[0, 4, 1, 2], &[1, 4], &[2, 4, 2]] {
        assert!(decode_instructions(bad, 4).is_err(), "{bad:?}");
    }
    let largest = [&[1, 4][..], &[0xff; 9], &[1]].concat();
    let expected = vec![Instruction::Copy { basis_offset: u64::MAX, len: 4 }];
    assert_eq!(decode_instructions(&largest, 4).unwrap(), expected);
    assert!(decode_instructions(&[&[1, 4][..], &[0xff; 9], &[2]].concat(), 4).is_err());
    assert!(decode_instructions(&[], SEGMENT + 1).is_err());
}

/// A digest that a match told with it is the segment's, whatever was found, and is only told where it is one of the file's.
#[test]
fn matching_tells_the_digest_of_a_segment() {
    let segment_bytes = limits::SEGMENT_BYTES as usize;
    let data = noise(9, 2 * segment_bytes + 5000);
    let mut index = BasisIndex::new(data.len() as u64, 16 << 10).unwrap();
    index.insert(signature_of(0, &data, 16 << 10)).unwrap();
    for (start, end) in [(0, segment_bytes), (segment_bytes, 2 * segment_bytes), (2 * segment_bytes, data.len())] {
        let segment = Segment { data: &data, range: start..end, offset: start as u64 };
        let found = match_segment(&segment, &index, &MatchState::new());
        assert_eq!(found.literal_bytes, 0);
        assert_eq!(found.digest, Some(crate::model::segment_digest(&data[start..end])));
    }
    let unaligned = Segment { data: &data, range: 1..segment_bytes, offset: 1 };
    assert_eq!(match_segment(&unaligned, &index, &MatchState::new()).digest, None);
}

#[test]
fn the_encodings_are_frozen() {
    let mut window = noise(1, 2 * 4096);
    window.extend_from_slice(&[0; 4096]);
    window.extend_from_slice(b"tail");
    let mut encoded = Vec::new();
    signature_of(limits::DELTA_WINDOW_BYTES, &window, 4096).encode(&mut encoded);
    assert_eq!(encoded.len(), 16 + 1 + 2 * 20 + 16);
    assert_eq!(encoded[..17], [0, 0, 64, 0, 0, 0, 0, 0, 4, 48, 0, 0, 0, 16, 0, 0, 4]);
    assert_eq!(encoded[17..21], signature::weak_sum(&window[..4096]).to_le_bytes());
    let chaining_value = |range: std::ops::Range<usize>| {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(range.start as u64).update(&window[range]).finalize_non_root()
    };
    assert_eq!(encoded[21..37], chaining_value(0..4096)[..16]);
    assert_eq!(encoded[41..57], chaining_value(4096..8192)[..16]);
    assert_eq!(encoded[57..], chaining_value(3 * 4096..window.len())[..16]);
    let mut encoded = Vec::new();
    let instructions = [
        Instruction::Literal { range: 1..3 },
        Instruction::Copy { basis_offset: 300, len: 5 },
        Instruction::Zero { len: 128 },
    ];
    encode_instructions(&instructions, b"abcd", &mut encoded);
    assert_eq!(encoded, [0, 2, b'b', b'c', 1, 5, 0xac, 2, 2, 0x80, 1]);
}

/// A change of a file.
#[derive(Debug, Clone)]
enum Edit {
    Insert(usize, u64, usize),
    Delete(usize, usize),
    Overwrite(usize, u64, usize),
    Zero(usize, usize),
    Move(usize, usize, usize),
    Append(u64, usize),
    Truncate(usize),
    Replace(u64, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = || 0..3 * SEGMENT;
    let length = || prop_oneof![0..300usize, 0..200_000usize, Just(4096), Just(BLOCK)];
    let edit = prop_oneof![
        (at(), any::<u64>(), length()).prop_map(|(at, seed, length)| Edit::Insert(at, seed, length)),
        (at(), length()).prop_map(|(at, length)| Edit::Delete(at, length)),
        (at(), any::<u64>(), length()).prop_map(|(at, seed, length)| Edit::Overwrite(at, seed, length)),
        (at(), length()).prop_map(|(at, length)| Edit::Zero(at, length)),
        (at(), at(), length()).prop_map(|(from, to, length)| Edit::Move(from, to, length)),
        (any::<u64>(), length()).prop_map(|(seed, length)| Edit::Append(seed, length)),
        at().prop_map(Edit::Truncate),
        (any::<u64>(), length()).prop_map(|(seed, length)| Edit::Replace(seed, length)),
    ];
    proptest::collection::vec(edit, 0..5)
}

fn change(bytes: &mut Vec<u8>, edit: &Edit) {
    let length = bytes.len();
    let clip = |at: usize, span: usize| at.min(length)..at.saturating_add(span).min(length);
    match *edit {
        Edit::Insert(at, seed, span) => drop(bytes.splice(clip(at, 0), noise(seed, span))),
        Edit::Delete(at, span) => drop(bytes.drain(clip(at, span))),
        Edit::Overwrite(at, seed, span) => {
            let range = clip(at, span);
            let fresh = noise(seed, range.len());
            bytes[range].copy_from_slice(&fresh);
        }
        Edit::Zero(at, span) => bytes[clip(at, span)].fill(0),
        Edit::Move(from, to, span) => {
            let piece: Vec<_> = bytes.drain(clip(from, span)).collect();
            let to = to.min(bytes.len());
            drop(bytes.splice(to..to, piece));
        }
        Edit::Append(seed, span) => bytes.extend_from_slice(&noise(seed, span)),
        Edit::Truncate(at) => bytes.truncate(at),
        Edit::Replace(seed, span) => *bytes = noise(seed, span),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_was_described_and_matched_is_rebuilt(
        seed in 0..4u64,
        length in prop_oneof![Just(0), 0..70_000usize, 0..3 * SEGMENT],
        block_shift in 12..16u32,
        surroundings in prop_oneof![Just(0), Just(BLOCK), 0..100_000usize],
        before in edits(),
        after in edits(),
    ) {
        let mut basis = noise(seed, length);
        before.iter().for_each(|edit| change(&mut basis, edit));
        let mut new = basis.clone();
        after.iter().for_each(|edit| change(&mut new, edit));
        transfer(&basis, &new, 1 << block_shift, surroundings);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_windows_and_any_order_of_segments_will_do(
        seed in 0..4u64,
        length in 3 * MIB..14 * MIB,
        block_shift in 12..16u32,
        held in proptest::collection::vec(any::<bool>(), 4),
        edits in proptest::collection::vec((edits(), 0..12 * MIB), 1..4),
    ) {
        use rayon::prelude::*;

        let basis = noise(seed, length);
        let mut new = basis.clone();
        for (edits, place) in edits {
            let mut tail = new.split_off(place.min(new.len()));
            edits.iter().for_each(|edit| change(&mut tail, edit));
            new.extend_from_slice(&tail);
        }
        let mut index = BasisIndex::new(basis.len() as u64, 1 << block_shift).unwrap();
        for (number, window) in basis.chunks(limits::DELTA_WINDOW_BYTES as usize).enumerate().rev() {
            if held[number] {
                let offset = number as u64 * limits::DELTA_WINDOW_BYTES;
                index.insert(signature_of(offset, window, 1 << block_shift)).unwrap();
            }
        }
        let state = MatchState::new();
        new.par_chunks(SEGMENT).enumerate().for_each(|(number, segment)| {
            let view = Segment { data: segment, range: 0..segment.len(), offset: (number * SEGMENT) as u64 };
            let matched = match_segment(&view, &index.clone(), &state);
            let mut rebuilt = Vec::new();
            apply(&matched.instructions, segment, &basis[..], basis.len() as u64, segment.len(), &mut rebuilt).unwrap();
            assert!(rebuilt == segment);
        });
    }
}

proptest! {
    #[test]
    fn decoders_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0..2000usize) {
        let _ = WindowSignature::decode(&bytes);
        if let Ok(instructions) = decode_instructions(&bytes, length) {
            let total: usize = instructions.iter().map(Instruction::output_bytes).sum();
            prop_assert_eq!(total, length);
            let _ = apply(&instructions, &bytes, &[1u8; 100][..], 100, length, &mut Vec::new());
        }
    }

    #[test]
    fn decoders_take_mutated_bytes(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut window = noise(5, 3 * 4096 + 50);
        window[4096..8192].fill(0);
        let mut signature = Vec::new();
        signature_of(0, &window, 4096).encode(&mut signature);
        let mut instructions = Vec::new();
        let list = [
            Instruction::Copy { basis_offset: 1 << 40, len: 700 },
            Instruction::Literal { range: 0..100 },
            Instruction::Zero { len: 300 },
        ];
        encode_instructions(&list, &window, &mut instructions);
        prop_assert!(WindowSignature::decode(&signature[..cut.index(signature.len())]).is_err());
        prop_assert!(decode_instructions(&instructions[..cut.index(instructions.len())], 1100).is_err());
        for bytes in [&mut signature, &mut instructions] {
            for (index, value) in &flips {
                let at = index.index(bytes.len());
                bytes[at] = *value;
            }
        }
        // What decodes is the one encoding of what it says.
        if let Ok(decoded) = WindowSignature::decode(&signature) {
            let mut again = Vec::new();
            decoded.encode(&mut again);
            prop_assert_eq!(&again, &signature);
        }
        if let Ok(decoded) = decode_instructions(&instructions, 1100) {
            let mut again = Vec::new();
            encode_instructions(&decoded, &instructions, &mut again);
            prop_assert_eq!(&again, &instructions);
        }
    }
}
