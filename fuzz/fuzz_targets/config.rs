//! A daemon's configuration, and its quick forms on the command line.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use xfer::limits;
use xfer::sync::serve::{Module, ServeLimits, parse_config, parse_listen, parse_metrics};

fuzz_target!(|text: &str| {
    match parse_config(text) {
        Ok(config) => {
            assert!(config.modules.len() <= limits::SERVE_MODULES_MAX);
            assert!(config.listen.len() <= limits::SERVE_LISTENERS_MAX);
            let names: HashSet<&str> = config.modules.iter().map(|module| module.name.as_str()).collect();
            assert_eq!(names.len(), config.modules.len(), "two modules of one name");
            assert!(config.modules.iter().all(|module| module.path.is_absolute() && !module.name.is_empty()));
            // What is configured only tightens.
            let (set, widest) = (config.limits, ServeLimits::default());
            assert!(set.connections <= widest.connections && set.sessions <= widest.sessions);
            assert!(set.connections_per_address <= widest.connections_per_address);
            assert!(set.unauthenticated <= widest.unauthenticated);
            assert!(set.sessions_per_key <= widest.sessions_per_key);
            assert_eq!(parse_config(text), Ok(config));
        }
        Err(error) => assert!(error.line.is_none_or(|line| (1..=text.lines().count() + 1).contains(&line))),
    }
    if let Ok(module) = Module::parse(text) {
        assert!(!module.name.is_empty() && !module.path.as_os_str().is_empty());
    }
    if let Ok(address) = parse_listen(text) {
        assert_eq!(parse_listen(&address.to_string()), Ok(address));
    }
    if let Ok(address) = parse_metrics(text) {
        assert_eq!(parse_metrics(&address.to_string()), Ok(address));
    }
});
