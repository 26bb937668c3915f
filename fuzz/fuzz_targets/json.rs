//! The messages that are JSON: the client's options and paths, events, the end of listings, totals.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::model::{Kind, RelPath};
use xfer::plan::filter::{DirFilter, FilterPlace, Side};
use xfer::wire::{Message, MessageKind};
use xfer_fuzz::{Input, check_message};

const KINDS: [MessageKind; 6] = [
    MessageKind::Setup,
    MessageKind::Event,
    MessageKind::ListingEnd,
    MessageKind::Done,
    MessageKind::Lane,
    MessageKind::Modules,
];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let kind = KINDS[usize::from(input.u8()) % KINDS.len()];
    let Some(Message::Setup(setup)) = check_message(kind, input.rest()) else { return };
    // What a far end asks of options that it did not make.
    let options = &setup.options;
    for mode in [0, 0o644, 0o7777] {
        for is_dir in [false, true] {
            assert!(options.chmod.apply(mode, is_dir) <= 0o7777);
        }
        assert!(xfer::plan::mode::source_mode(mode, Kind::File, options) <= 0o7777);
    }
    for id in [0, 1000, u32::MAX] {
        let first = options.id_maps.users.map(id, Some(b"name"));
        assert_eq!(first, options.id_maps.users.map(id, Some(b"name")));
        let _ = options.id_maps.groups.map(id, None);
    }
    let place = FilterPlace {
        side: Side::Receiver,
        delete_excluded: false,
        root_path: b"/srv/data".to_vec(),
        root_is_above: true,
    };
    if let Ok(filter) = DirFilter::root(&options.filters, &place, &mut |_, _| Ok(None))
        && let Ok(path) = RelPath::new(b"name")
    {
        assert_eq!(filter.verdict(&path, false), filter.verdict(&path, false));
    }
});
