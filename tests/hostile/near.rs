//! A hostile far end of a client.

use xfer::model::PieceId;
use xfer::wire::{Greeting, Message, Want, WantMode};

use super::support::peer::{FakeFarEnd, said};
use super::support::run::{Output, sync};
use super::support::ssh::at;
use super::{Place, listed};

const READY: Message = Message::Ready { lane_key: None };

fn pull(place: &Place, far: &FakeFarEnd) -> Output {
    let output = sync(["-a"]).args(far.args()).args([at("far", "/src/".as_ref()), place.root().into()]).run();
    assert!((1..126).contains(&output.code()), "{}", output.describe());
    assert!(!output.err().contains("panicked"), "{}", output.describe());
    output
}

#[test]
fn a_far_sender_that_lies() {
    // One entry "..", as in the wire's own tests: flags, prefix, name, kind, then numbers.
    let piece = [0, 0, 1, 1, 0, 0, 1, 64, 0, 2, b'.', b'.', 0, 0xa4, 3, 5, 8, 0, 0, 0, 0];
    let listing = [&(piece.len() as u32).to_le_bytes()[..], &[6], &piece].concat();
    let sources = said(&Message::Sources { single: None, root: None });
    let place = Place::new();
    for (words, said) in [
        ([said(&READY), sources.clone(), listing].concat(), "bad name"),
        ([said(&READY), sources.clone(), said(&Message::Data(vec![0xff; 9]))].concat(), ""),
        ([said(&READY), sources, vec![0xff; 5]].concat(), "frame length"),
        (said(&Message::Stop), "unexpected message"),
    ] {
        pull(&place, &FakeFarEnd::saying(&words)).says(&[said]);
        place.is_untouched();
    }
    pull(&place, &FakeFarEnd::raw(b"Welcome to far!\r\nLast login: never\r\n")).says(&["Welcome to far!"]);
    pull(&place, &FakeFarEnd::raw(&Greeting::ours().encode()[..9]));
    place.is_untouched();
}

#[test]
fn a_far_receiver_that_asks_for_what_was_not_offered() {
    let place = Place::new();
    let wants = Message::Wants { piece: PieceId(5), wants: vec![Want { index: 0, mode: WantMode::Whole }] };
    let far = FakeFarEnd::saying(&[said(&READY), said(&wants)].concat());
    let mut source = place.root().into_os_string();
    source.push("/");
    let output = sync(["-a"]).args(far.args()).args([source, at("far", "/dst".as_ref())]).run();
    assert!((1..126).contains(&output.code()), "{}", output.describe());
    output.says(&["not open"]);
    assert_eq!(listed(&place.root()), ["old"]);
}
