//! The cryptography that is used, named explicitly: no process-wide default can change it.

use std::sync::{Arc, OnceLock};

use rustls::Tls13CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::hash::Hash;

/// TLS 1.3 ciphers only, the fastest first; the key exchange is safe against recorded traffic being read later.
pub(in crate::net) fn tls() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
            ..default_provider()
        })
    })
}

/// SHA-256, of the same library.
pub(in crate::net) fn sha256() -> &'static dyn Hash {
    const SUITE: &Tls13CipherSuite = match cipher_suite::TLS13_AES_128_GCM_SHA256.tls13() {
        Some(suite) => suite,
        None => panic!("a suite of TLS 1.3 is one"),
    };
    SUITE.common.hash_provider
}
