//! A piece of a listing, and what the receiver's book says to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::limits;
use xfer::model::{Name, RelPath, display_bytes};
use xfer::wire::{Message, MessageKind, ReceiverFlow, encode_listing};
use xfer_fuzz::{bounded, check_message};

fuzz_target!(|data: &[u8]| {
    let Some(Message::Listing(piece)) = check_message(MessageKind::Listing, data) else { return };
    assert_eq!(encode_listing(&piece), Message::Listing(piece.clone()).encode());
    assert!(piece.is_sorted());
    assert!(piece.entries.len() <= limits::LISTING_PIECE_ENTRIES_MAX);
    for listed in &piece.entries {
        let name = &listed.entry.name;
        assert_eq!(Name::new(name.as_bytes()).as_ref(), Ok(name));
        let joined = RelPath::root().join(name);
        assert_eq!((joined.depth(), joined.file_name()), (1, Some(name.clone())));
        assert!(!display_bytes(name.as_bytes()).chars().any(char::is_control));
    }
    let mut flow = ReceiverFlow::new();
    if bounded(data.len(), || flow.on_piece(&piece)).is_ok() {
        assert_eq!(flow.on_listing_end().is_ok(), piece.last && piece.children() == 0);
    }
});
