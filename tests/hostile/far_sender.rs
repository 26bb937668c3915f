//! A hostile client that receives from a far sender.

use xfer::model::{Digest, PieceId};
use xfer::wire::{FarRole, FileKey, Message, MessageKind, Want, WantMode};

use super::support::peer::{FarEnd, setup, told};
use super::{MIB_MAX, Place, options};

/// A far sender that has listed its root: piece 0 with the one file `old`.
fn sender(place: &Place) -> FarEnd {
    let mut root = place.root().into_os_string();
    root.push("/");
    let mut far = FarEnd::set_up(&setup(FarRole::Sender, root.as_ref(), options()));
    far.hear(|message| matches!(message, Message::Listing(_)).then_some(())).expect("it lists");
    far
}

#[test]
fn wants_of_what_was_never_listed() {
    let place = Place::new();
    let whole = |index| vec![Want { index, mode: WantMode::Whole }];
    for (piece, index) in [(7, 0), (u64::MAX, 0), (0, 1), (0, 1023)] {
        let mut far = sender(&place);
        far.say(&Message::Wants { piece: PieceId(piece), wants: whole(index) });
        far.ends().honestly("not open", MIB_MAX);
    }
    let mut far = sender(&place);
    far.say(&Message::Release { piece: PieceId(9), safe: Vec::new() });
    far.ends().honestly("not open", MIB_MAX);
    place.is_untouched();
}

#[test]
fn blocks_of_no_length() {
    let place = Place::new();
    for block_bytes in [0u64, 1, 12_345, 1 << 63] {
        let mut far = sender(&place);
        far.raw(&told(MessageKind::Wants, |out| {
            for number in [0, 1, 0] {
                out.uint(number);
            }
            out.u8(3);
            out.uint(1 << 40);
            out.uint(block_bytes);
            out.bool(false);
            out.bool(false);
        }));
        far.ends().honestly("block length out of range", MIB_MAX);
    }
    place.is_untouched();
}

#[test]
fn signatures_of_nothing_and_data_the_wrong_way() {
    let place = Place::new();
    for message in [
        Message::Data(vec![0xff; 100]),
        Message::TreeDigest(Digest([0; 32])),
        Message::Sources { single: None, root: None },
    ] {
        let mut far = sender(&place);
        far.say(&message);
        far.ends().honestly("", MIB_MAX);
    }
    // A signature may come late, when its file is settled already: passed over, until the client goes.
    let mut far = sender(&place);
    let key = FileKey { piece: PieceId(0), index: 0 };
    far.say(&Message::Signature { key, window: u64::MAX, bytes: vec![0; 16] });
    far.hang_up().honestly("", MIB_MAX);
    place.is_untouched();
}
