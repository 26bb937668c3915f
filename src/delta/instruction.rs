//! Instructions: how the receiver rebuilds one segment.

use std::ops::Range;

use super::DeltaError;
use crate::limits;

/// One step of rebuilding a segment. The steps of a segment follow each other without gaps; none is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Bytes that the basis does not have. On the sender a range of the segment, on the receiver of the encoded
    /// instructions: of the buffer that goes with them.
    Literal {
        /// The bytes.
        range: Range<usize>,
    },
    /// Bytes of the basis.
    Copy {
        /// Where in the basis.
        basis_offset: u64,
        /// How many.
        len: usize,
    },
    /// Zeros.
    Zero {
        /// How many.
        len: usize,
    },
}

impl Instruction {
    /// Bytes of the segment that the instruction stands for.
    pub fn output_bytes(&self) -> usize {
        match self {
            Instruction::Literal { range } => range.len(),
            Instruction::Copy { len, .. } | Instruction::Zero { len } => *len,
        }
    }
}

const TAG_LITERAL: u8 = 0;
const TAG_COPY: u8 = 1;
const TAG_ZERO: u8 = 2;

/// Appends the encoded form of a segment's instructions: for each a tag byte, then the number of bytes it stands for,
/// then for a copy its offset, for a literal its bytes. Numbers are LEB128. At most a few bytes longer than the
/// segment.
///
/// # Panics
/// When a literal's range does not lie in `segment`.
pub fn encode_instructions(instructions: &[Instruction], segment: &[u8], out: &mut Vec<u8>) {
    for instruction in instructions {
        match instruction {
            Instruction::Literal { range } => {
                out.push(TAG_LITERAL);
                put_number(out, range.len() as u64);
                out.extend_from_slice(&segment[range.clone()]);
            }
            Instruction::Copy { basis_offset, len } => {
                out.push(TAG_COPY);
                put_number(out, *len as u64);
                put_number(out, *basis_offset);
            }
            Instruction::Zero { len } => {
                out.push(TAG_ZERO);
                put_number(out, *len as u64);
            }
        }
    }
}

/// Reads the encoded form, all of `encoded`, for a segment of exactly `segment_length` bytes (at most
/// `limits::SEGMENT_BYTES`). Literals become ranges of `encoded`. Copies are not checked against a basis here;
/// [`apply`] does that.
pub fn decode_instructions(encoded: &[u8], segment_length: usize) -> Result<Vec<Instruction>, DeltaError> {
    let fail = |reason| Err(DeltaError::Instructions(reason));
    if segment_length as u64 > limits::SEGMENT_BYTES {
        return fail("segment too long");
    }
    let mut instructions = Vec::new();
    let mut left = segment_length;
    let mut at = 0;
    while let Some(&tag) = encoded.get(at) {
        at += 1;
        if instructions.len() == limits::DELTA_INSTRUCTIONS_MAX {
            return fail("too many instructions");
        }
        let len = take_number(encoded, &mut at)?;
        let Some(len) = usize::try_from(len).ok().filter(|&len| (1..=left).contains(&len)) else {
            return fail("more bytes than the segment has, or none");
        };
        left -= len;
        instructions.push(match tag {
            TAG_LITERAL => {
                let range = at..at + len;
                if encoded.get(range.clone()).is_none() {
                    return fail("short literal");
                }
                at = range.end;
                Instruction::Literal { range }
            }
            TAG_COPY => Instruction::Copy { basis_offset: take_number(encoded, &mut at)?, len },
            TAG_ZERO => Instruction::Zero { len },
            _ => return fail("unknown tag"),
        });
    }
    if left > 0 {
        return fail("fewer bytes than the segment has");
    }
    Ok(instructions)
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(encoded: &[u8], at: &mut usize) -> Result<u64, DeltaError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let &byte = encoded.get(*at).ok_or(DeltaError::Instructions("short number"))?;
        *at += 1;
        let bits = u64::from(byte & 0x7f);
        // Of the tenth byte one bit is left; and a last byte of 0 would be a second form of the same number.
        if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
            return Err(DeltaError::Instructions("number"));
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DeltaError::Instructions("number"))
}

/// The basis, as [`apply`] reads it.
pub trait BasisRead {
    /// Fills `buffer` from `offset` on. A basis that ends before is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;
}

impl BasisRead for [u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.get(start..).and_then(|bytes| bytes.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Rebuilds one segment of exactly `segment_length` bytes at the end of `out`. `literals` is the buffer that the
/// literals' ranges are of. After an error `out` is as it was.
///
/// The caller compares the segment's digest: the basis may have changed since it was described.
pub fn apply<B: BasisRead + ?Sized>(
    instructions: &[Instruction],
    literals: &[u8],
    basis: &B,
    basis_length: u64,
    segment_length: usize,
    out: &mut Vec<u8>,
) -> Result<(), DeltaError> {
    let start = out.len();
    let applied = apply_all(instructions, literals, basis, basis_length, segment_length, out);
    if applied.is_err() {
        out.truncate(start);
    }
    applied
}

fn apply_all<B: BasisRead + ?Sized>(
    instructions: &[Instruction],
    literals: &[u8],
    basis: &B,
    basis_length: u64,
    segment_length: usize,
    out: &mut Vec<u8>,
) -> Result<(), DeltaError> {
    let mut left = segment_length;
    out.reserve(segment_length.min(limits::SEGMENT_BYTES as usize));
    for instruction in instructions {
        let len = instruction.output_bytes();
        left = left.checked_sub(len).ok_or(DeltaError::Instructions("more bytes than the segment has"))?;
        match instruction {
            Instruction::Literal { range } => {
                let bytes = literals.get(range.clone()).ok_or(DeltaError::Instructions("literal out of range"))?;
                out.extend_from_slice(bytes);
            }
            Instruction::Copy { basis_offset, .. } => {
                let (offset, length) = (*basis_offset, len as u64);
                if offset.checked_add(length).is_none_or(|end| end > basis_length) {
                    return Err(DeltaError::CopyOutOfBounds { offset, length, basis_length });
                }
                let end = out.len();
                out.resize(end + len, 0);
                basis.read_at(offset, &mut out[end..]).map_err(DeltaError::Basis)?;
            }
            Instruction::Zero { .. } => out.resize(out.len() + len, 0),
        }
    }
    if left > 0 {
        return Err(DeltaError::Instructions("fewer bytes than the segment has"));
    }
    Ok(())
}
