//! Records of file content. A data frame holds one or more of them, back to back; each names its file, so that records
//! of different files may come in any order and over any lane. Records of one file keep their order.

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
        /// How `bytes` are encoded.
        encoding: Encoding,
        /// The content.
        bytes: &'a [u8],
    },
    /// A file's segments follow. Repeated when the file is read again: what came before is void.
    Begin {
        /// What was found.
        content: Content,
    },
    /// One segment, whole.
    Segment {
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
        /// Index of the segment.
        index: u64,
    },
    /// One segment as instructions against the basis (`delta`).
    Patch {
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
        /// Digest of the whole.
        digest: Digest,
        /// As in `Small`.
        live: bool,
    },
    /// The content equals that whose digest came with the want.
    Same {
        /// What was found.
        content: Content,
    },
    /// The digest that was asked for.
    Digest {
        /// Digest of the whole.
        digest: Digest,
    },
    /// The file does not arrive.
    Failed {
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
            DataRecord::Small { content, digest, live, encoding, bytes } => {
                encode_content(content, &mut out);
                out.raw(&digest.0);
                out.bool(*live);
                out.u8(*encoding as u8);
                out.bytes(bytes);
            }
            DataRecord::Begin { content } | DataRecord::Same { content } => encode_content(content, &mut out),
            DataRecord::Segment { index, digest, encoding, bytes } => {
                out.uint(*index);
                out.raw(&digest.0);
                out.u8(*encoding as u8);
                out.bytes(bytes);
            }
            DataRecord::ZeroSegment { index } => out.uint(*index),
            DataRecord::Patch { index, digest, encoding, decoded_bytes, bytes } => {
                out.uint(*index);
                out.raw(&digest.0);
                out.u8(*encoding as u8);
                out.uint(u64::from(*decoded_bytes));
                out.bytes(bytes);
            }
            DataRecord::End { digest, live } => {
                out.raw(&digest.0);
                out.bool(*live);
            }
            DataRecord::Digest { digest } => out.raw(&digest.0),
            DataRecord::Failed { failure, errno, text } => {
                out.u8(*failure as u8);
                out.int(i64::from(*errno));
                out.bytes(text);
            }
        }
    }

    /// Whether the file is settled by this record.
    pub fn settles(&self) -> bool {
        matches!(
            self,
            DataRecord::Small { .. }
                | DataRecord::End { .. }
                | DataRecord::Same { .. }
                | DataRecord::Digest { .. }
                | DataRecord::Failed { .. }
        )
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
                encoding: decode_encoding(from)?,
                bytes: from.bytes(segment_max, "content")?,
            },
            BEGIN => DataRecord::Begin { content: decode_content(from)? },
            SEGMENT => DataRecord::Segment {
                index: from.bounded(SEGMENT_INDEX_MAX, "segment")?,
                digest: Digest(from.array()?),
                encoding: decode_encoding(from)?,
                bytes: from.bytes(segment_max, "content")?,
            },
            ZERO_SEGMENT => DataRecord::ZeroSegment { index: from.bounded(SEGMENT_INDEX_MAX, "segment")? },
            PATCH => DataRecord::Patch {
                index: from.bounded(SEGMENT_INDEX_MAX, "segment")?,
                digest: Digest(from.array()?),
                encoding: decode_encoding(from)?,
                decoded_bytes: from.bounded(limits::FRAME_BYTES_MAX as u64, "instructions")? as u32,
                bytes: from.bytes(limits::FRAME_BYTES_MAX, "instructions")?,
            },
            END => DataRecord::End { digest: Digest(from.array()?), live: from.bool("flag")? },
            SAME => DataRecord::Same { content: decode_content(from)? },
            DIGEST => DataRecord::Digest { digest: Digest(from.array()?) },
            FAILED => {
                let failure = from.u8()?;
                DataRecord::Failed {
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
