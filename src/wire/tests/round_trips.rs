//! What is encoded decodes to the same, and the encoding is one.

use proptest::collection::vec;
use proptest::prelude::*;

use super::arbitrary::{message, parts, piece};
use crate::limits;
use crate::wire::{FRAME_HEADER_BYTES, FrameHeader, Greeting, Message, MessageKind, RecordReader, encode_listing};

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

#[test]
fn frame_headers_round_trip_and_are_bounded() {
    for &kind in MessageKind::ALL {
        for payload_bytes in [0, 1, 255, 256, limits::FRAME_BYTES_MAX] {
            let header = FrameHeader { payload_bytes, kind };
            assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        }
    }
    assert_eq!(MessageKind::ALL.len(), 18);
    let too_long = (limits::FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
    for bytes in [
        [too_long[0], too_long[1], too_long[2], too_long[3], MessageKind::Data as u8],
        [0xff, 0xff, 0xff, 0xff, MessageKind::Data as u8],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 19],
        [0, 0, 0, 0, 255],
    ] {
        let bytes: [u8; FRAME_HEADER_BYTES] = bytes;
        assert!(FrameHeader::decode(&bytes).is_err(), "{bytes:?}");
    }
}
