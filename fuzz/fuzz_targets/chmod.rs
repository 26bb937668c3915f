//! `--chmod`: as the user writes it, and as it crosses the wire.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::plan::chmod::ChmodRules;

fn check(rules: &ChmodRules) -> [u32; 6] {
    let results = [(0, false), (0o644, false), (0o4755, false), (0o7777, false), (0o700, true), (0o2775, true)]
        .map(|(mode, is_dir)| rules.apply(mode, is_dir));
    assert!(results.iter().all(|&mode| mode <= 0o7777));
    results
}

fuzz_target!(|text: &str| {
    for umask in [0, 0o022, 0o077] {
        match ChmodRules::parse(text, umask) {
            Ok(rules) => {
                let results = check(&rules);
                let json = serde_json::to_string(&rules).expect("rules serialise");
                let read: ChmodRules = serde_json::from_str(&json).expect("what was written is read");
                assert_eq!(check(&read), results);
                assert_eq!(read, rules);
            }
            Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
        }
    }
    if let Ok(rules) = serde_json::from_str::<ChmodRules>(text) {
        check(&rules);
    }
});
