//! Sizes as options take them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::plan::size::{SizeUnit, parse_bwlimit, parse_size};

fuzz_target!(|text: &str| {
    for unit in [SizeUnit::Bytes, SizeUnit::Kibibytes] {
        match parse_size(text, unit) {
            Ok(bytes) => {
                assert!(bytes <= i64::MAX as u64);
                assert_eq!(parse_size(&format!("{bytes}b"), unit), Ok(bytes));
            }
            Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
        }
    }
    if let Ok(Some(bytes)) = parse_bwlimit(text) {
        assert!((512..=i64::MAX as u64).contains(&bytes));
        assert_eq!(parse_size(text, SizeUnit::Kibibytes), Ok(bytes));
    }
});
