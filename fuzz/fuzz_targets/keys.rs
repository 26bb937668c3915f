//! Key files: `authorized_keys`, `known_hosts`, private keys, and the addresses in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::net::keys::{HostPort, Network, is_module_name, key_and_comment, read_authorized_keys, read_known_hosts};
use xfer::net::{Identity, PublicKey};

fuzz_target!(|text: &str| {
    let (grants, refused) = read_authorized_keys(text);
    assert!(grants.len() + refused.len() <= text.lines().count());
    for grant in &grants {
        for module in grant.rights.modules.iter().flatten() {
            assert!(is_module_name(module));
        }
        // A line that is written grants what it was meant to, and nothing else.
        let line = grant.to_line();
        assert_eq!(read_authorized_keys(&line), (vec![grant.clone()], Vec::new()), "{line}");
    }
    if let Ok(hosts) = read_known_hosts(text) {
        for (host, _) in hosts {
            assert_eq!(HostPort::parse(&host.to_string()), Ok(host));
        }
    }
    if let Ok(host) = HostPort::parse(text) {
        assert_eq!(HostPort::parse(&host.to_string()), Ok(host));
    }
    if let Some(network) = Network::parse(text) {
        assert_eq!(Network::parse(&network.to_string()), Some(network));
    }
    if let Ok((key, _)) = key_and_comment(text) {
        assert_eq!(key_and_comment(&key.to_string()).map(|(key, _)| key), Ok::<PublicKey, _>(key));
    }
    if let Ok(identity) = Identity::from_pem(text) {
        let again = Identity::from_pem(&identity.to_pem()).expect("what was written is read");
        assert_eq!(again.public_key(), identity.public_key());
    }
});
