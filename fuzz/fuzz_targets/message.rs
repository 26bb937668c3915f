//! One message of any kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer_fuzz::{Input, check_message};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let kind = input.kind();
    check_message(kind, input.rest());
});
