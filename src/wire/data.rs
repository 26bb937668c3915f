//! Records of file content. A data frame holds one or more of them, back to back; each names its file. Frames may
//! come in any order and over any lane, those of one file too: a frame with segments says itself what they are segments
//! of (`Begin`), and the record that settles a file says how many segments there are to wait for.

use super::{DecodeError, Decoder, Encoder};
use crate::limits;
use crate::model::{Digest, PieceId, Timestamp};

/// A file of the session: the piece that listed it and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// The piece.
    pub piece: PieceId,
    /// Index of the entry.
    pub index: u16,
}

/// How content bytes are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// One zstd frame.
    Zstd,
    /// One lz4 block, without a length in front.
    Lz4,
}

impl Encoding {
    const ALL: [Encoding; 3] = [Encoding::Raw, Encoding::Zstd, Encoding::Lz4];
}

/// What the sender found when it opened the file, which may be newer than the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Length in bytes.
    pub size: u64,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Why a file does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It is gone.
    Vanished,
    /// It kept changing.
    Changed,
    /// It could not be read.
    Unreadable,
}

impl Failure {
    const ALL: [Failure; 3] = [Failure::Vanished, Failure::Changed, Failure::Unreadable];
}

/// One record, borrowing its bytes from the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataRecord<'a> {
    /// A whole small file.
    Small {
        /// What was found.
        content: Content,
        /// Digest of the whole.
        digest: Digest,
        /// The file changed while it was read, and `--live` takes it as it is.
        live: bool,
        /// Segments that were sent of earlier attempts.
        segments: u64,
        /// How `bytes` are encoded.
        encoding: Encoding,
        /// The content.
        bytes: &'a [u8],
    },
    /// Segments of a file or its end follow in this frame. Said in every frame that has some.
    Begin {
        /// Which read of the file: when it is read again, segments of an earlier attempt are void.
        attempt: u8,
        /// What was found.
        content: Content,
    },
    /// One segment, whole.
    Segment {
        /// As in its `Begin`.
        attempt: u8,
        /// Index of the segment.
        index: u64,
        /// Digest of the decoded bytes.
        digest: Digest,
        /// How `bytes` are encoded.
        encoding: Encoding,
        /// The content.
        bytes: &'a [u8],
    },
    /// One segment of zeros, full or the file's last.
    ZeroSegment {
        /// As in its `Begin`.
        attempt: u8,
        /// Index of the segment.
        index: u64,
    },
    /// One segment as instructions against the basis (`delta`).
    Patch {
        /// As in its `Begin`.
        attempt: u8,
        /// Index of the segment.
        index: u64,
        /// Digest of the resulting bytes.
        digest: Digest,
        /// How `bytes` are encoded.
        encoding: Encoding,
        /// Length of the decoded instructions in bytes.
        decoded_bytes: u32,
        /// The instructions.
        bytes: &'a [u8],
    },
    /// All segments were sent.
    End {
        /// The attempt that counts.
        attempt: u8,
        /// Digest of the whole.
        digest: Digest,
        /// As in `Small`.
        live: bool,
        /// Segments that were sent, of all attempts.
        segments: u64,
    },
    /// The content equals that whose digest came with the want.
    Same {
        /// What was found.
        content: Content,
        /// Segments that were sent of earlier attempts.
        segments: u64,
    },
    /// The digest that was asked for.
    Digest {
        /// Digest of the whole.
        digest: Digest,
    },
    /// The file does not arrive.
    Failed {
        /// Segments that were sent all the same.
        segments: u64,
        /// Why.
        failure: Failure,
        /// The system's error number, 0 when there is none.
        errno: i32,
        /// In words.
        text: &'a [u8],
    },
}

const SMALL: u8 = 0;
const BEGIN: u8 = 1;
const SEGMENT: u8 = 2;
const ZERO_SEGMENT: u8 = 3;
const PATCH: u8 = 4;
const END: u8 = 5;
const SAME: u8 = 6;
const DIGEST: u8 = 7;
const FAILED: u8 = 8;

/// Segment numbers are bounded by the longest file there can be.
const SEGMENT_INDEX_MAX: u64 = i64::MAX as u64 / limits::SEGMENT_BYTES;

/// Segments of all attempts at the longest file.
const SEGMENTS_MAX: u64 = (SEGMENT_INDEX_MAX + 1) * limits::CHANGED_FILE_READS_MAX as u64;

impl DataRecord<'_> {
    /// Appends the record of `key`.
    pub fn encode(&self, key: FileKey, buffer: &mut Vec<u8>) {
        let mut out = Encoder::new(buffer);
        let code = match self {
            DataRecord::Small { .. } => SMALL,
            DataRecord::Begin { .. } => BEGIN,
            DataRecord::Segment { .. } => SEGMENT,
            DataRecord::ZeroSegment { .. } => ZERO_SEGMENT,
            DataRecord::Patch { .. } => PATCH,
            DataRecord::End { .. } => END,
            DataRecord::Same { .. } => SAME,
            DataRecord::Digest { .. } => DIGEST,
            DataRecord::Failed { .. } => FAILED,
        };
        out.u8(code);
        out.uint(key.piece.0);
        out.uint(u64::from(key.index));
        match self {
            DataRecord::Small { content, digest, live, segments, encoding, bytes } => {
                encode_content(content, &mut out);
                out.raw(&digest.0);
                out.bool(*live);
                out.uint(*segments);
                out.u8(*encoding as u8);
                out.bytes(bytes);
            }
            DataRecord::Begin { attempt, content } => {
                out.u8(*attempt);
                encode_content(content, &mut out);
            }
            DataRecord::Same { content, segments } => {
                encode_content(content, &mut out);
                out.uint(*segments);
            }
            DataRecord::Segment { attempt, index, digest, encoding, bytes } => {
                out.u8(*attempt);
                out.uint(*index);
                out.raw(&digest.0);
                out.u8(*encoding as u8);
                out.bytes(bytes);
            }
            DataRecord::ZeroSegment { attempt, index } => {
                out.u8(*attempt);
                out.uint(*index);
            }
            DataRecord::Patch { attempt, index, digest, encoding, decoded_bytes, bytes } => {
                out.u8(*attempt);
                out.uint(*index);
                out.raw(&digest.0);
                out.u8(*encoding as u8);
                out.uint(u64::from(*decoded_bytes));
                out.bytes(bytes);
            }
            DataRecord::End { attempt, digest, live, segments } => {
                out.u8(*attempt);
                out.raw(&digest.0);
                out.bool(*live);
                out.uint(*segments);
            }
            DataRecord::Digest { digest } => out.raw(&digest.0),
            DataRecord::Failed { segments, failure, errno, text } => {
                out.uint(*segments);
                out.u8(*failure as u8);
                out.int(i64::from(*errno));
                out.bytes(text);
            }
        }
    }

    /// For a record that settles its file: how many segments of it were sent besides.
    pub fn settles(&self) -> Option<u64> {
        match self {
            DataRecord::Small { segments, .. }
            | DataRecord::End { segments, .. }
            | DataRecord::Same { segments, .. }
            | DataRecord::Failed { segments, .. } => Some(*segments),
            DataRecord::Digest { .. } => Some(0),
            DataRecord::Begin { .. }
            | DataRecord::Segment { .. }
            | DataRecord::ZeroSegment { .. }
            | DataRecord::Patch { .. } => None,
        }
    }

    /// Length of the bytes that the record carries besides its fields.
    pub(super) fn payload_bytes(&self) -> u64 {
        let bytes: &[u8] = match self {
            DataRecord::Small { bytes, .. } | DataRecord::Segment { bytes, .. } | DataRecord::Patch { bytes, .. } => {
                bytes
            }
            DataRecord::Failed { text, .. } => text,
            DataRecord::Begin { .. }
            | DataRecord::ZeroSegment { .. }
            | DataRecord::End { .. }
            | DataRecord::Same { .. }
            | DataRecord::Digest { .. } => &[],
        };
        bytes.len() as u64
    }
}

fn encode_content(content: &Content, out: &mut Encoder<'_>) {
    out.uint(content.size);
    out.int(content.mtime.seconds);
    out.uint(u64::from(content.mtime.nanoseconds));
    out.uint(u64::from(content.mode));
    out.uint(u64::from(content.uid));
    out.uint(u64::from(content.gid));
}

fn decode_content(from: &mut Decoder<'_>) -> Result<Content, DecodeError> {
    Ok(Content {
        size: from.bounded(i64::MAX as u64, "file length")?,
        mtime: Timestamp::new(from.int()?, from.bounded(999_999_999, "nanoseconds")? as u32),
        mode: from.bounded(0o7777, "mode")? as u32,
        uid: from.u32("user id")?,
        gid: from.u32("group id")?,
    })
}

fn decode_attempt(from: &mut Decoder<'_>) -> Result<u8, DecodeError> {
    let attempt = from.u8()?;
    if u32::from(attempt) < limits::CHANGED_FILE_READS_MAX { Ok(attempt) } else { Err(DecodeError::Range("attempt")) }
}

fn decode_encoding(from: &mut Decoder<'_>) -> Result<Encoding, DecodeError> {
    let code = from.u8()?;
    Encoding::ALL
        .get(usize::from(code))
        .copied()
        .ok_or(DecodeError::Unknown { what: "encoding", value: u64::from(code) })
}

/// The records of a data frame's payload.
#[derive(Debug)]
pub struct RecordReader<'a> {
    decoder: Decoder<'a>,
}

impl<'a> RecordReader<'a> {
    /// Reads `payload`.
    pub fn new(payload: &'a [u8]) -> RecordReader<'a> {
        RecordReader { decoder: Decoder::new(payload) }
    }

    /// The next record; `None` at the end of the payload.
    #[allow(clippy::should_implement_trait, reason = "an iterator would go on after an error")]
    pub fn next(&mut self) -> Result<Option<(FileKey, DataRecord<'a>)>, DecodeError> {
        let from = &mut self.decoder;
        if from.remaining() == 0 {
            return Ok(None);
        }
        let code = from.u8()?;
        let piece = PieceId(from.uint()?);
        let index = from.bounded(limits::LISTING_PIECE_ENTRIES_MAX as u64 - 1, "entry index")? as u16;
        let segment_max = limits::SEGMENT_BYTES as usize;
        let record = match code {
            SMALL => DataRecord::Small {
                content: decode_content(from)?,
                digest: Digest(from.array()?),
                live: from.bool("flag")?,
                segments: from.bounded(SEGMENTS_MAX, "number of segments")?,
                encoding: decode_encoding(from)?,
                bytes: from.bytes(segment_max, "content")?,
            },
            BEGIN => DataRecord::Begin { attempt: decode_attempt(from)?, content: decode_content(from)? },
            SEGMENT => DataRecord::Segment {
                attempt: decode_attempt(from)?,
                index: from.bounded(SEGMENT_INDEX_MAX, "segment")?,
                digest: Digest(from.array()?),
                encoding: decode_encoding(from)?,
                bytes: from.bytes(segment_max, "content")?,
            },
            ZERO_SEGMENT => DataRecord::ZeroSegment {
                attempt: decode_attempt(from)?,
                index: from.bounded(SEGMENT_INDEX_MAX, "segment")?,
            },
            PATCH => DataRecord::Patch {
                attempt: decode_attempt(from)?,
                index: from.bounded(SEGMENT_INDEX_MAX, "segment")?,
                digest: Digest(from.array()?),
                encoding: decode_encoding(from)?,
                decoded_bytes: from.bounded(limits::FRAME_BYTES_MAX as u64, "instructions")? as u32,
                bytes: from.bytes(limits::FRAME_BYTES_MAX, "instructions")?,
            },
            END => DataRecord::End {
                attempt: decode_attempt(from)?,
                digest: Digest(from.array()?),
                live: from.bool("flag")?,
                segments: from.bounded(SEGMENTS_MAX, "number of segments")?,
            },
            SAME => DataRecord::Same {
                content: decode_content(from)?,
                segments: from.bounded(SEGMENTS_MAX, "number of segments")?,
            },
            DIGEST => DataRecord::Digest { digest: Digest(from.array()?) },
            FAILED => {
                let segments = from.bounded(SEGMENTS_MAX, "number of segments")?;
                let failure = from.u8()?;
                DataRecord::Failed {
                    segments,
                    failure: *Failure::ALL
                        .get(usize::from(failure))
                        .ok_or(DecodeError::Unknown { what: "failure", value: u64::from(failure) })?,
                    errno: i32::try_from(from.int()?).map_err(|_| DecodeError::Range("error number"))?,
                    text: from.bytes(limits::TEXT_BYTES_MAX, "text")?,
                }
            }
            other => return Err(DecodeError::Unknown { what: "record", value: u64::from(other) }),
        };
        Ok(Some((FileKey { piece, index }, record)))
    }
}
