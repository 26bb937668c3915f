//! Throughput of the delta room on one core, in bytes of the file.

use divan::Bencher;
use divan::counter::BytesCount;
use xfer::delta::{BasisIndex, MatchState, Segment, apply, match_segment, signature_of};
use xfer::limits;

const BLOCK_BYTES: u32 = 16 << 10;
const FILE_BYTES: usize = 32 << 20;
const SEGMENT: usize = limits::SEGMENT_BYTES as usize;
const WINDOW: usize = limits::DELTA_WINDOW_BYTES as usize;

fn main() {
    divan::main();
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn index_of(basis: &[u8]) -> BasisIndex {
    let mut index = BasisIndex::new(basis.len() as u64, BLOCK_BYTES).expect("block size");
    for (number, window) in basis.chunks(WINDOW).enumerate() {
        index.insert(signature_of((number * WINDOW) as u64, window, BLOCK_BYTES)).expect("fits");
    }
    index
}

/// Matches all of `new`, state kept from segment to segment; returns the bytes of the literals.
fn match_all(new: &[u8], index: &BasisIndex) -> u64 {
    let state = MatchState::new();
    let mut literal_bytes = 0;
    for start in (0..new.len()).step_by(SEGMENT) {
        let end = (start + SEGMENT).min(new.len());
        let from = start.saturating_sub(BLOCK_BYTES as usize);
        let to = (end + BLOCK_BYTES as usize).min(new.len());
        let segment = Segment { data: &new[from..to], range: start - from..end - from, offset: start as u64 };
        literal_bytes += match_segment(&segment, index, &state).literal_bytes;
    }
    literal_bytes
}

fn bench_match(bencher: Bencher, new: Vec<u8>) {
    let index = index_of(&noise(1, FILE_BYTES));
    bencher.counter(BytesCount::new(new.len())).bench(|| match_all(&new, &index));
}

#[divan::bench]
fn signature(bencher: Bencher) {
    let basis = noise(1, FILE_BYTES);
    bencher.counter(BytesCount::new(basis.len())).bench(|| index_of(&basis));
}

/// What a signature would cost with the crate's own weak and MD4 sums besides our digest.
#[divan::bench]
fn signature_of_fast_rsync_alone(bencher: Bencher) {
    let basis = noise(1, FILE_BYTES);
    let options = fast_rsync::SignatureOptions { block_size: BLOCK_BYTES, crypto_hash_size: 8 };
    bencher.counter(BytesCount::new(basis.len())).bench(|| {
        basis.chunks(WINDOW).map(|window| fast_rsync::Signature::calculate(window, options)).collect::<Vec<_>>()
    });
}

#[divan::bench]
fn match_equal(bencher: Bencher) {
    bench_match(bencher, noise(1, FILE_BYTES));
}

#[divan::bench]
fn match_one_page_of_a_hundred_changed(bencher: Bencher) {
    let mut new = noise(1, FILE_BYTES);
    for page in (0..FILE_BYTES / BLOCK_BYTES as usize).filter(|page| page * 7919 % 100 == 0) {
        new[page * BLOCK_BYTES as usize] ^= 1;
    }
    bench_match(bencher, new);
}

#[divan::bench]
fn match_one_page_of_four_changed(bencher: Bencher) {
    let mut new = noise(1, FILE_BYTES);
    for page in (0..FILE_BYTES / BLOCK_BYTES as usize).filter(|page| page * 7919 % 4096 < 1024) {
        new[page * BLOCK_BYTES as usize] ^= 1;
    }
    bench_match(bencher, new);
}

#[divan::bench]
fn match_shifted(bencher: Bencher) {
    let mut new = noise(2, 100);
    new.extend_from_slice(&noise(1, FILE_BYTES));
    bench_match(bencher, new);
}

#[divan::bench]
fn match_unrelated(bencher: Bencher) {
    bench_match(bencher, noise(2, FILE_BYTES));
}

/// The rolling search alone: nothing learnt from one segment to the next.
#[divan::bench]
fn match_unrelated_always_searched(bencher: Bencher) {
    let index = index_of(&noise(1, FILE_BYTES));
    let new = noise(2, 8 * SEGMENT);
    bencher.counter(BytesCount::new(new.len())).bench(|| {
        new.chunks(SEGMENT).enumerate().for_each(|(number, data)| {
            let segment = Segment { data, range: 0..data.len(), offset: ((20 + number) * SEGMENT) as u64 };
            divan::black_box(match_segment(&segment, &index, &MatchState::new()));
        });
    });
}

/// The same with an index of as much basis as is ever held.
#[divan::bench]
fn index_and_search_of_all_held_windows(bencher: Bencher) {
    let index = index_of(&noise(1, limits::DELTA_WINDOWS_HELD_MAX * WINDOW));
    let state = MatchState::new();
    let new = noise(2, SEGMENT);
    let segment = Segment { data: &new, range: 0..new.len(), offset: (20 * SEGMENT) as u64 };
    // Past giving up, one round is one search.
    while match_segment(&segment, &index, &state).searched_bytes > 0 {}
    bencher.counter(BytesCount::new(new.len())).bench(|| {
        (0..limits::DELTA_PROBE_INTERVAL).map(|_| match_segment(&segment, &index, &state).searched_bytes).sum::<u64>()
    });
}

#[divan::bench]
fn match_zeros(bencher: Bencher) {
    bench_match(bencher, vec![0; FILE_BYTES]);
}

#[divan::bench]
fn rebuild(bencher: Bencher) {
    let basis = noise(1, FILE_BYTES);
    let index = index_of(&basis);
    let matched =
        match_segment(&Segment { data: &basis[..SEGMENT], range: 0..SEGMENT, offset: 0 }, &index, &MatchState::new());
    let mut out = Vec::with_capacity(SEGMENT);
    bencher.counter(BytesCount::new(SEGMENT)).bench_local(|| {
        out.clear();
        apply(&matched.instructions, &[], &basis[..], basis.len() as u64, SEGMENT, &mut out).expect("applies");
    });
}
