//! File contents: digests in parallel, compressed forms.

use std::fs::File;
use std::io;

use rayon::prelude::*;

use super::StopFlag;
use crate::fs;
use crate::limits;
use crate::model::{ContentHasher, Digest, SegmentDigests, ZERO_SEGMENT_DIGEST_BYTES, segment_digest};
use crate::plan::options::Compression;
use crate::wire::Encoding;

/// Segments hashed side by side before their digests are folded: bounds memory to this many buffers' worth of digests.
const BATCH_SEGMENTS: u64 = 256;

/// Digest of the first `length` bytes of a file; `None` where the file is shorter. Holes are not read.
pub(super) fn digest_file(file: &File, length: u64, stop: &StopFlag) -> io::Result<Option<Digest>> {
    let segment_bytes = limits::SEGMENT_BYTES;
    if length <= segment_bytes {
        let mut content = vec![0; length as usize];
        let read = fs::read_exact_or_eof_at(file, &mut content, 0)?;
        return Ok((read as u64 == length).then(|| ContentHasher::digest(&content)));
    }
    let mut digests = SegmentDigests::new(length);
    let mut data = DataMap::new(file, length);
    let count = digests.count();
    let mut first = 0;
    while first < count {
        if stop.requested() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let last = (first + BATCH_SEGMENTS).min(count);
        let wanted: Vec<(u64, bool)> = (first..last)
            .map(|index| {
                let start = index * segment_bytes;
                let is_full = length - start >= segment_bytes;
                Ok((index, !is_full || data.has_data(start, start + segment_bytes)?))
            })
            .collect::<io::Result<_>>()?;
        let hashed: Vec<Option<Digest>> = wanted
            .par_iter()
            .map_init(
                || vec![0; segment_bytes as usize],
                |buffer, &(index, has_data)| {
                    if !has_data {
                        return Ok(Some(Digest(ZERO_SEGMENT_DIGEST_BYTES)));
                    }
                    let start = index * segment_bytes;
                    let bytes = &mut buffer[..(length - start).min(segment_bytes) as usize];
                    let read = fs::read_exact_or_eof_at(file, bytes, start)?;
                    Ok((read == bytes.len()).then(|| segment_digest(bytes)))
                },
            )
            .collect::<io::Result<_>>()?;
        for ((index, _), digest) in wanted.into_iter().zip(hashed) {
            let Some(digest) = digest else { return Ok(None) };
            digests.set(index, digest);
        }
        first = last;
    }
    Ok(digests.finish())
}

/// Where a file has data, asked for in rising order.
pub(super) struct DataMap<'a> {
    ranges: fs::DataRanges<'a>,
    current: Option<std::ops::Range<u64>>,
    done: bool,
}

impl DataMap<'_> {
    pub(super) fn new(file: &File, length: u64) -> DataMap<'_> {
        DataMap { ranges: fs::data_ranges(file, length), current: None, done: false }
    }

    /// Whether anything in the range is data.
    pub(super) fn has_data(&mut self, start: u64, end: u64) -> io::Result<bool> {
        loop {
            if let Some(range) = &self.current
                && range.end > start
            {
                return Ok(range.start < end);
            }
            if self.done {
                return Ok(false);
            }
            match self.ranges.next() {
                Some(range) => self.current = Some(range?),
                None => self.done = true,
            }
        }
    }
}

/// Content shorter than this is not worth a compressor's set-up.
const COMPRESS_BYTES_MIN: usize = 128;

/// Bytes of the sample that tells whether content can be compressed at all.
const SAMPLE_BYTES: usize = 4096;

/// zstd's level where none was named: the fastest that still halves text.
const ZSTD_LEVEL_DEFAULT: i32 = 1;

/// Compresses content for the wire where that saves anything worth the time.
#[derive(Default)]
pub struct Compressor {
    zstd: Option<(i32, zstd::bulk::Compressor<'static>)>,
    buffer: Vec<u8>,
}

impl Compressor {
    /// The bytes to send and their encoding.
    pub fn encode<'a>(&'a mut self, bytes: &'a [u8], how: Option<Compression>) -> (Encoding, &'a [u8]) {
        let Some(how) = how else { return (Encoding::Raw, bytes) };
        if bytes.len() < COMPRESS_BYTES_MIN {
            return (Encoding::Raw, bytes);
        }
        if bytes.len() > 4 * SAMPLE_BYTES {
            // Media and archives show in a sample from the middle; a head may be all headers.
            let middle = bytes.len() / 2;
            let sample = &bytes[middle..middle + SAMPLE_BYTES];
            if lz4_flex::block::compress(sample).len() > SAMPLE_BYTES * 9 / 10 {
                return (Encoding::Raw, bytes);
            }
        }
        let encoding = match how {
            Compression::Lz4 => {
                self.buffer.resize(lz4_flex::block::get_maximum_output_size(bytes.len()), 0);
                match lz4_flex::block::compress_into(bytes, &mut self.buffer) {
                    Ok(length) => {
                        self.buffer.truncate(length);
                        Encoding::Lz4
                    }
                    Err(_) => return (Encoding::Raw, bytes),
                }
            }
            Compression::Zstd { level } => match self.zstd(bytes, level.unwrap_or(ZSTD_LEVEL_DEFAULT)) {
                Ok(()) => Encoding::Zstd,
                Err(_) => return (Encoding::Raw, bytes),
            },
        };
        if self.buffer.len() >= bytes.len() { (Encoding::Raw, bytes) } else { (encoding, &self.buffer) }
    }

    fn zstd(&mut self, bytes: &[u8], level: i32) -> io::Result<()> {
        if self.zstd.as_ref().is_none_or(|(current, _)| *current != level) {
            self.zstd = Some((level, zstd::bulk::Compressor::new(level)?));
        }
        self.buffer.clear();
        self.buffer.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        match &mut self.zstd {
            Some((_, compressor)) => compressor.compress_to_buffer(bytes, &mut self.buffer).map(|_| ()),
            None => Err(io::ErrorKind::Other.into()),
        }
    }
}

/// Undoes [`Compressor::encode`]; the output is capped by what was declared.
#[derive(Default)]
pub struct Decompressor {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    buffer: Vec<u8>,
}

impl Decompressor {
    /// The content, of exactly `length` bytes; `None` where it is not that.
    pub fn decode<'a>(&'a mut self, bytes: &'a [u8], encoding: Encoding, length: usize) -> Option<&'a [u8]> {
        match encoding {
            Encoding::Raw => (bytes.len() == length).then_some(bytes),
            Encoding::Lz4 => {
                self.buffer.resize(length, 0);
                let written = lz4_flex::block::decompress_into(bytes, &mut self.buffer).ok()?;
                (written == length).then_some(&self.buffer[..length])
            }
            Encoding::Zstd => {
                if self.zstd.is_none() {
                    self.zstd = zstd::bulk::Decompressor::new().ok();
                }
                self.buffer.resize(length, 0);
                // A slice, not the vector: what does not fit is an error, never a larger buffer.
                let written = self.zstd.as_mut()?.decompress_to_buffer(bytes, &mut self.buffer[..length]).ok()?;
                (written == length).then_some(&self.buffer[..length])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_and_nothing_longer_does() {
        let text = b"the same words again and again ".repeat(2000);
        let mut random = Vec::new();
        let mut hasher = blake3::Hasher::new().finalize_xof();
        random.resize(60_000, 0);
        hasher.fill(&mut random);
        for how in [Compression::Zstd { level: None }, Compression::Zstd { level: Some(9) }, Compression::Lz4] {
            let mut compressor = Compressor::default();
            let (encoding, bytes) = compressor.encode(&text, Some(how));
            assert_ne!(encoding, Encoding::Raw);
            assert!(bytes.len() < text.len() / 4);
            let mut decompressor = Decompressor::default();
            assert_eq!(decompressor.decode(bytes, encoding, text.len()), Some(&text[..]));
            assert_eq!(decompressor.decode(bytes, encoding, text.len() - 1), None);
            assert_eq!(decompressor.decode(bytes, encoding, 10), None);
            assert_eq!(compressor.encode(&random, Some(how)).0, Encoding::Raw);
        }
    }

    #[test]
    fn a_files_digest_is_that_of_its_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..3_000_000u32).map(|index| (index % 249) as u8).collect();
        io::Write::write_all(&mut file, &content).unwrap();
        file.set_len(8_000_000).unwrap();
        let mut whole = content.clone();
        whole.resize(8_000_000, 0);
        let stop = StopFlag::new();
        assert_eq!(digest_file(&file, 8_000_000, &stop).unwrap(), Some(ContentHasher::digest(&whole)));
        assert_eq!(digest_file(&file, 100, &stop).unwrap(), Some(ContentHasher::digest(&whole[..100])));
        assert_eq!(digest_file(&file, 8_000_001, &stop).unwrap(), None);
    }
}
