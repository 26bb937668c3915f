//! What is encoded decodes to the same, and the encoding is one.

use proptest::collection::vec;
use proptest::prelude::*;

use super::arbitrary::{message, parts, piece};
use crate::limits;
use crate::wire::{
    FRAME_HEADER_BYTES, FrameHeader, Greeting, Message, MessageKind, PREAMBLE_BYTES, Preamble, RecordReader, SessionId,
    encode_listing,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn messages_round_trip(message in message()) {
        let payload = message.encode();
        prop_assert!(payload.len() <= limits::FRAME_BYTES_MAX);
        let decoded = Message::decode(message.kind(), payload.clone());
        prop_assert_eq!(decoded.as_ref(), Ok(&message));
        prop_assert_eq!(decoded.unwrap().encode(), payload);
    }

    #[test]
    fn listings_round_trip(piece in piece()) {
        let payload = encode_listing(&piece);
        prop_assert_eq!(&payload, &Message::Listing(Box::new(piece.clone())).encode());
        prop_assert_eq!(Message::decode(MessageKind::Listing, payload), Ok(Message::Listing(Box::new(piece))));
    }

    #[test]
    fn records_round_trip_back_to_back(all in vec(parts(), 0..8)) {
        let mut payload = Vec::new();
        for parts in &all {
            parts.record().encode(parts.key, &mut payload);
        }
        let mut reader = RecordReader::new(&payload);
        for parts in &all {
            prop_assert_eq!(reader.next(), Ok(Some((parts.key, parts.record()))));
        }
        prop_assert_eq!(reader.next(), Ok(None));
    }

    #[test]
    fn greetings_round_trip(protocol_min: u16, protocol_max: u16, version in "[ -~]{0,64}") {
        let greeting = Greeting { protocol_min, protocol_max, version };
        let bytes = greeting.encode();
        prop_assert_eq!(Greeting::decode(&bytes), Ok(greeting.clone()));
        let mut rest = &bytes[..];
        let read = Greeting::read_whole(|buffer| {
            let (head, tail) = rest.split_at_checked(buffer.len()).ok_or(())?;
            buffer.copy_from_slice(head);
            rest = tail;
            Ok::<_, ()>(())
        });
        prop_assert_eq!(read, Ok(Ok(greeting)));
        prop_assert!(rest.is_empty());
    }
}

proptest! {
    /// All that has the magic bytes is a preamble, and nothing else is.
    #[test]
    fn preambles_round_trip(id: [u8; 16], other: [u8; PREAMBLE_BYTES], at in 0..8usize, bits in 1..=255u8) {
        let session = (id != [0; 16]).then_some(SessionId(id));
        let mut bytes = Preamble { session }.encode();
        prop_assert_eq!(Preamble::decode(&bytes), Some(Preamble { session }));
        bytes[at] ^= bits;
        prop_assert_eq!(Preamble::decode(&bytes), None);
        if let Some(preamble) = Preamble::decode(&other) {
            prop_assert_eq!(preamble.encode(), other);
        }
    }
}

#[test]
fn a_new_session_has_no_id() {
    assert_eq!(Preamble { session: None }.encode()[8..], [0; 16]);
    assert_eq!(Preamble::decode(&Preamble { session: None }.encode()), Some(Preamble { session: None }));
    // A greeting is none: which of the two a connection begins with can be told.
    let mut greeting = Greeting::ours().encode();
    greeting.resize(PREAMBLE_BYTES, 0);
    assert_eq!(Preamble::decode(greeting.first_chunk().unwrap()), None);
}

#[test]
fn frame_headers_round_trip_and_are_bounded() {
    for &kind in MessageKind::ALL {
        for payload_bytes in [0, 1, 255, 256, limits::FRAME_BYTES_MAX] {
            let header = FrameHeader { payload_bytes, kind };
            assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        }
    }
    assert_eq!(MessageKind::ALL.len(), 22);
    let too_long = (limits::FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
    for bytes in [
        [too_long[0], too_long[1], too_long[2], too_long[3], MessageKind::Data as u8],
        [0xff, 0xff, 0xff, 0xff, MessageKind::Data as u8],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 23],
        [0, 0, 0, 0, 255],
    ] {
        let bytes: [u8; FRAME_HEADER_BYTES] = bytes;
        assert!(FrameHeader::decode(&bytes).is_err(), "{bytes:?}");
    }
}
