//! What the targets share: bounds of memory, and inputs cut into parts.

use allocation_counter::measure;
use xfer::wire::{Message, MessageKind};

/// What decoding may take at its peak for each byte of input: the least entry of a table against what it becomes, while
/// the table grows by doubling. The same as in the wire's own tests.
pub const MEMORY_PER_BYTE_MAX: u64 = 80;

/// What it may take beside that: room for one piece, made at once because its count is bounded.
pub const MEMORY_BASE_MAX: u64 = 2 << 20;

/// Runs `work` on an input of `input_bytes`, and holds the bound of memory that Rust code allocates in it.
///
/// # Panics
/// When the work took more.
pub fn bounded<T>(input_bytes: usize, work: impl FnOnce() -> T) -> T {
    bounded_by(MEMORY_BASE_MAX + MEMORY_PER_BYTE_MAX * input_bytes as u64, work)
}

/// Runs `work`, which may take `bytes_max` at its peak.
///
/// # Panics
/// When the work took more.
pub fn bounded_by<T>(bytes_max: u64, work: impl FnOnce() -> T) -> T {
    let mut result = None;
    let taken = measure(|| result = Some(work())).bytes_max;
    assert!(taken <= bytes_max, "took {taken} bytes of memory, allowed are {bytes_max}");
    match result {
        Some(result) => result,
        None => unreachable!("the work ran"),
    }
}

/// Decodes one message and checks what holds for all: bounded memory, and that whatever is accepted can be said again
/// and is then the same.
///
/// # Panics
/// When that does not hold.
pub fn check_message(kind: MessageKind, payload: &[u8]) -> Option<Message> {
    let owned = payload.to_vec();
    let message = bounded(payload.len(), || Message::decode(kind, owned)).ok()?;
    assert_eq!(message.kind(), kind);
    let again = message.encode();
    if has_one_form(kind) {
        assert_eq!(again, payload, "{kind:?} has a second form");
    }
    match Message::decode(kind, again.clone()) {
        Ok(decoded) => {
            assert_eq!(decoded, message);
            assert_eq!(decoded.encode(), again);
        }
        // Replacement characters are longer than what they stand for.
        Err(error) => assert!(kind == MessageKind::Fatal, "{kind:?}: {error}"),
    }
    Some(message)
}

/// Kinds of which each message has exactly one encoding. JSON has many, and so have shared prefixes of names.
fn has_one_form(kind: MessageKind) -> bool {
    matches!(
        kind,
        MessageKind::Paths
            | MessageKind::Ready
            | MessageKind::Owners
            | MessageKind::Data
            | MessageKind::Wants
            | MessageKind::Signature
            | MessageKind::Release
            | MessageKind::Items
            | MessageKind::Stop
            | MessageKind::Heartbeat
            | MessageKind::TreeDigest
            | MessageKind::LaneHello
            | MessageKind::LaneWelcome
    )
}

/// Cuts numbers and parts off the front of an input. An input that has ended gives zeros and nothing.
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from(self.u8()) | u16::from(self.u8()) << 8
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    /// So many bytes, or what is left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// A part with its length in two bytes in front.
    pub fn part(&mut self) -> &'a [u8] {
        let length = self.u16();
        self.take(usize::from(length))
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// A kind of message, by its place among all.
    pub fn kind(&mut self) -> MessageKind {
        MessageKind::ALL[usize::from(self.u8()) % MessageKind::ALL.len()]
    }
}
