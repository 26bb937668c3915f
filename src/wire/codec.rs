//! Primitive values: unsigned LEB128 integers, zig-zag for signed ones, byte strings with a length. Every length is
//! checked against a bound and against what is there before anything is allocated.

/// Why bytes from a peer are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The payload ends within a value.
    #[error("message ends early")]
    Truncated,
    /// Bytes are left over.
    #[error("message has {0} bytes too many")]
    Trailing(usize),
    /// A value is out of its range.
    #[error("{0} out of range")]
    Range(&'static str),
    /// An unknown kind, flag or tag.
    #[error("unknown {what} {value}")]
    Unknown {
        /// What it should have been.
        what: &'static str,
        /// The value found.
        value: u64,
    },
    /// A name or path that could leave its directory, or is too long.
    #[error("bad name: {0}")]
    Name(#[from] crate::model::PathError),
    /// Text that is not JSON of the expected form.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

/// Writes values to the end of a buffer.
#[derive(Debug)]
pub struct Encoder<'a> {
    buffer: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// Appends to `buffer`.
    pub fn new(buffer: &'a mut Vec<u8>) -> Encoder<'a> {
        Encoder { buffer }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.buffer.push(value);
    }

    /// LEB128, 1 to 10 bytes.
    pub fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }

    /// Zig-zag LEB128.
    pub fn int(&mut self, value: i64) {
        self.uint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Length and bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.uint(bytes.len() as u64);
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes whose number both sides know.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.buffer.push(u8::from(value));
    }
}

/// Reads values from the front of a slice.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: bytes }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    /// LEB128; only the shortest form is accepted, so that every value has one encoding.
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Range("integer"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::Range("integer encoding"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::Range("integer"))
    }

    /// Zig-zag LEB128.
    pub fn int(&mut self) -> Result<i64, DecodeError> {
        let raw = self.uint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// An integer of at most `max`.
    pub fn bounded(&mut self, max: u64, what: &'static str) -> Result<u64, DecodeError> {
        let value = self.uint()?;
        if value > max { Err(DecodeError::Range(what)) } else { Ok(value) }
    }

    /// An integer that fits 32 bits.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.uint()?).map_err(|_| DecodeError::Range(what))
    }

    /// Length and bytes, at most `max` of them.
    pub fn bytes(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.bounded(max as u64, what)? as usize;
        self.raw(length)
    }

    /// `length` bytes.
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// 0 or 1.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Unknown { what, value: u64::from(value) }),
        }
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_round_trip(unsigned: u64, signed: i64) {
            let mut buffer = Vec::new();
            let mut encoder = Encoder::new(&mut buffer);
            encoder.uint(unsigned);
            encoder.int(signed);
            let mut decoder = Decoder::new(&buffer);
            prop_assert_eq!(decoder.uint(), Ok(unsigned));
            prop_assert_eq!(decoder.int(), Ok(signed));
            prop_assert_eq!(decoder.finish(), Ok(()));
        }
    }

    #[test]
    fn overlong_and_oversized_integers_are_refused() {
        assert_eq!(Decoder::new(&[0x80, 0]).uint(), Err(DecodeError::Range("integer encoding")));
        assert_eq!(Decoder::new(&[0xff; 10]).uint(), Err(DecodeError::Range("integer")));
        assert_eq!(Decoder::new(&[0xff; 3]).uint(), Err(DecodeError::Truncated));
    }

    #[test]
    fn lengths_are_checked_before_use() {
        let mut buffer = Vec::new();
        Encoder::new(&mut buffer).uint(1 << 63);
        assert_eq!(Decoder::new(&buffer).bytes(10, "name"), Err(DecodeError::Range("name")));
        assert_eq!(Decoder::new(&[5, 1, 2]).bytes(10, "name"), Err(DecodeError::Truncated));
    }
}
