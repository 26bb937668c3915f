//! A stream of frames, as a link brings them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::limits;
use xfer::wire::{FRAME_HEADER_BYTES, FrameHeader};
use xfer_fuzz::check_message;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Some((bytes, after)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
        let Ok(header) = FrameHeader::decode(bytes) else { break };
        assert!(header.payload_bytes <= limits::FRAME_BYTES_MAX);
        assert_eq!(header.encode(), *bytes);
        let Some((payload, after)) = after.split_at_checked(header.payload_bytes) else { break };
        if check_message(header.kind, payload).is_none() {
            break;
        }
        rest = after;
    }
});
