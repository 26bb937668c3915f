//! What comes before any frame: the greeting, and a TCP connection's preamble.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::wire::{GREETING_BYTES_MAX, Greeting, PREAMBLE_BYTES, PROTOCOL_MAX, PROTOCOL_MIN, Preamble, agree};
use xfer_fuzz::bounded;

/// A stream that ends.
struct Ended;

fuzz_target!(|data: &[u8]| {
    let whole = bounded(data.len(), || Greeting::decode(data));
    if let Ok(greeting) = &whole {
        assert!(data.len() <= GREETING_BYTES_MAX);
        assert_eq!(greeting.encode(), data);
        match agree(&Greeting::ours(), greeting) {
            Ok(version) => {
                assert!((PROTOCOL_MIN..=PROTOCOL_MAX).contains(&version));
                assert!((greeting.protocol_min..=greeting.protocol_max).contains(&version));
            }
            Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
        }
    }
    let mut rest = data;
    let mut taken = 0;
    let fill = |buffer: &mut [u8]| {
        let (bytes, after) = rest.split_at_checked(buffer.len()).ok_or(Ended)?;
        buffer.copy_from_slice(bytes);
        rest = after;
        taken += bytes.len();
        Ok::<(), Ended>(())
    };
    if let Ok(read) = Greeting::read_whole(fill) {
        assert!(taken <= GREETING_BYTES_MAX);
        if let Ok(greeting) = &read {
            assert_eq!(Greeting::decode(&data[..taken]).as_ref(), Ok(greeting));
        }
        if let Ok(whole) = whole {
            assert_eq!(read, Ok(whole));
        }
    }
    if let Some(bytes) = data.first_chunk::<PREAMBLE_BYTES>()
        && let Some(preamble) = Preamble::decode(bytes)
    {
        assert_eq!(preamble.encode(), *bytes);
        assert!(preamble.session.is_none_or(|session| session.0 != [0; 16]));
    }
});
