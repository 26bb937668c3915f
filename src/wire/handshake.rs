//! The first bytes in each direction, before any frame.
//!
//! ```text
//! offset  bytes
//!      0  8      magic: 89 'x' 'f' 'e' 'r' 0d 0a 1a
//!      8  2      lowest protocol spoken, little-endian
//!     10  2      highest protocol spoken, little-endian
//!     12  1      length n of the program's version, at most 64
//!     13  n      the program's version, ASCII
//! ```
//!
//! The first byte is not ASCII and a line ending follows, so that a shell's greeting or a text conversion on the way
//! is recognised as what it is.

use super::DecodeError;

/// First byte after which a stream can be told from text.
const MAGIC: [u8; 8] = *b"\x89xfer\r\n\x1a";

/// Lowest and highest protocol version that this program speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// See [`PROTOCOL_MIN`].
pub const PROTOCOL_MAX: u16 = 1;

/// Longest greeting in bytes.
pub const GREETING_BYTES_MAX: usize = 13 + 64;

/// What a side says of itself first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Lowest protocol spoken.
    pub protocol_min: u16,
    /// Highest protocol spoken.
    pub protocol_max: u16,
    /// The program's version, for people.
    pub version: String,
}

/// Why two sides cannot talk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The bytes are not a greeting.
    #[error("not an xfer greeting")]
    NotAGreeting,
    /// No protocol version in common.
    #[error(
        "the two sides cannot talk: this is xfer {ours} (protocol {our_min} to {our_max}), \
         the far side is xfer {theirs} (protocol {their_min} to {their_max})"
    )]
    #[allow(missing_docs, reason = "the message says what they are")]
    Version { ours: String, our_min: u16, our_max: u16, theirs: String, their_min: u16, their_max: u16 },
}

impl Greeting {
    /// This program's.
    pub fn ours() -> Greeting {
        Greeting {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The first bytes of every greeting.
    pub fn magic() -> &'static [u8] {
        &MAGIC
    }

    /// Reads a greeting whose magic was read already. `fill` fills a buffer from the link.
    pub fn read_rest<E>(
        mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<Greeting, HandshakeError>, E> {
        let mut head = [0; 13];
        head[..8].copy_from_slice(&MAGIC);
        fill(&mut head[8..])?;
        Greeting::read_version(&head, fill)
    }

    /// Reads a whole greeting. `fill` fills a buffer from the link.
    pub fn read_whole<E>(
        mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<Greeting, HandshakeError>, E> {
        let mut head = [0; 13];
        fill(&mut head)?;
        Greeting::read_version(&head, fill)
    }

    fn read_version<E>(
        head: &[u8; 13],
        mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<Greeting, HandshakeError>, E> {
        let length = match Greeting::length(head) {
            Ok(length) => length,
            Err(error) => return Ok(Err(error)),
        };
        let mut whole = head.to_vec();
        whole.resize(length, 0);
        fill(&mut whole[13..])?;
        Ok(Greeting::decode(&whole))
    }

    /// The bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        let version = &self.version.as_bytes()[..self.version.len().min(64)];
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.protocol_min.to_le_bytes());
        bytes.extend_from_slice(&self.protocol_max.to_le_bytes());
        bytes.push(version.len() as u8);
        bytes.extend_from_slice(version);
        bytes
    }

    /// Number of bytes of the whole greeting, once its first 13 are there.
    pub fn length(head: &[u8; 13]) -> Result<usize, HandshakeError> {
        if head[..8] != MAGIC || head[12] > 64 {
            return Err(HandshakeError::NotAGreeting);
        }
        Ok(13 + usize::from(head[12]))
    }

    /// Reads a whole greeting.
    pub fn decode(bytes: &[u8]) -> Result<Greeting, HandshakeError> {
        let head: &[u8; 13] = bytes.first_chunk().ok_or(HandshakeError::NotAGreeting)?;
        if Greeting::length(head)? != bytes.len() || !bytes[13..].is_ascii() {
            return Err(HandshakeError::NotAGreeting);
        }
        Ok(Greeting {
            protocol_min: u16::from_le_bytes([head[8], head[9]]),
            protocol_max: u16::from_le_bytes([head[10], head[11]]),
            version: String::from_utf8_lossy(&bytes[13..]).into_owned(),
        })
    }
}

/// The protocol version that both speak: the highest in common.
pub fn agree(ours: &Greeting, theirs: &Greeting) -> Result<u16, HandshakeError> {
    let highest = ours.protocol_max.min(theirs.protocol_max);
    if highest < ours.protocol_min.max(theirs.protocol_min) {
        return Err(HandshakeError::Version {
            ours: ours.version.clone(),
            our_min: ours.protocol_min,
            our_max: ours.protocol_max,
            theirs: crate::model::display_bytes(theirs.version.as_bytes()),
            their_min: theirs.protocol_min,
            their_max: theirs.protocol_max,
        });
    }
    Ok(highest)
}

impl From<HandshakeError> for DecodeError {
    fn from(_: HandshakeError) -> DecodeError {
        DecodeError::Malformed("greeting")
    }
}

/// Bytes of a [`Preamble`].
pub const PREAMBLE_BYTES: usize = 24;

/// What every TCP connection begins with, in clear and before TLS: 8 magic bytes, then the id of the session that the
/// connection is a lane of, or zeros for a new session. The id is no secret: it finds the process that knows the
/// secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// The session to join; `None` begins one.
    pub session: Option<SessionId>,
}

/// Names a session at its listener. Random, never all zeros, not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct SessionId(pub [u8; 16]);

const PREAMBLE_MAGIC: [u8; 8] = *b"\x89xlane\r\n";

impl Preamble {
    /// The bytes to send.
    pub fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..8].copy_from_slice(&PREAMBLE_MAGIC);
        if let Some(session) = &self.session {
            bytes[8..].copy_from_slice(&session.0);
        }
        bytes
    }

    /// Reads a preamble; `None` where the peer does not speak this protocol.
    pub fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Option<Preamble> {
        let id: [u8; 16] = bytes[8..].try_into().ok()?;
        let session = (id != [0; 16]).then_some(SessionId(id));
        (bytes[..8] == PREAMBLE_MAGIC).then_some(Preamble { session })
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_round_trip_and_text_is_refused() {
        let ours = Greeting::ours();
        assert_eq!(Greeting::decode(&ours.encode()), Ok(ours.clone()));
        assert_eq!(Greeting::decode(b"Welcome to host42!\n"), Err(HandshakeError::NotAGreeting));
        assert_eq!(Greeting::decode(&ours.encode()[..14]), Err(HandshakeError::NotAGreeting));
    }

    #[test]
    fn versions_that_do_not_meet_name_both() {
        let ours = Greeting { protocol_min: 1, protocol_max: 1, version: "0.1.0".into() };
        let theirs = Greeting { protocol_min: 2, protocol_max: 3, version: "9.0".into() };
        let text = agree(&ours, &theirs).unwrap_err().to_string();
        assert!(text.contains("0.1.0") && text.contains("9.0"), "{text}");
        let newer = Greeting { protocol_min: 1, protocol_max: 3, version: "2.0".into() };
        assert_eq!(agree(&ours, &newer), Ok(1));
    }
}
