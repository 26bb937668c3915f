//! Who a peer is: an Ed25519 key. Names, certificates and authorities play no part.
//!
//! ```text
//! public key, as text      xfer-ed25519 BASE64          the 32 bytes of RFC 8032, 44 characters
//! fingerprint              SHA256:BASE64                of the same 32 bytes, without padding
//! private key, in files    PEM "PRIVATE KEY"            PKCS#8 version 1 of RFC 8410, 48 bytes of DER
//! public key, inside TLS   SubjectPublicKeyInfo         RFC 8410, 44 bytes of DER
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{BASE64, BASE64_NOPAD};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::tls::provider;

/// First word of a public key's text.
pub const KEY_TYPE: &str = "xfer-ed25519";

/// DER of a PKCS#8 version 1 Ed25519 key up to its 32 secret bytes (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// DER of an Ed25519 SubjectPublicKeyInfo up to its 32 bytes (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// A peer's public key: all that it is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct PublicKey(pub [u8; 32]);

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyParseError {
    /// The first word is not [`KEY_TYPE`].
    #[error("not a key of xfer: it begins with '{KEY_TYPE}' ('xfer key show' prints it)")]
    NotAKey,
    /// The second word is not 32 bytes in base64.
    #[error("the key after '{KEY_TYPE}' is damaged: 44 characters of base64 are expected")]
    Damaged,
    /// Not a PEM file with an Ed25519 key in PKCS#8.
    #[error("not an Ed25519 private key in PEM (PKCS#8), as 'xfer key new' makes it")]
    NotAPrivateKey,
    /// The cryptographic library refused the key.
    #[error("the private key cannot be used")]
    Unusable,
}

impl PublicKey {
    /// `SHA256:…`, for people to compare, in the form that ssh made familiar.
    pub fn fingerprint(&self) -> String {
        let hash = provider::sha256().hash(&self.0);
        format!("SHA256:{}", BASE64_NOPAD.encode(hash.as_ref()))
    }

    /// Reads a SubjectPublicKeyInfo; `None` for any other kind of key and for certificates.
    pub(super) fn from_spki(der: &[u8]) -> Option<PublicKey> {
        der.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(PublicKey)
    }

    /// The SubjectPublicKeyInfo.
    pub(super) fn to_spki(self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0[..]].concat()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{KEY_TYPE} {}", BASE64.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PublicKey({})", BASE64.encode(&self.0))
    }
}

impl FromStr for PublicKey {
    type Err = KeyParseError;

    /// Reads `xfer-ed25519 BASE64`; a comment after it is not part of it.
    fn from_str(text: &str) -> Result<PublicKey, KeyParseError> {
        let (kind, key) = text.trim().split_once([' ', '\t']).ok_or(KeyParseError::NotAKey)?;
        if kind != KEY_TYPE {
            return Err(KeyParseError::NotAKey);
        }
        let bytes = BASE64.decode(key.trim_start().as_bytes()).map_err(|_| KeyParseError::Damaged)?;
        bytes.try_into().map(PublicKey).map_err(|_| KeyParseError::Damaged)
    }
}

/// An Ed25519 key pair. The secret half is wiped from memory when dropped, and never shown by `Debug`.
#[derive(Clone)]
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Identity").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Identity {
    /// Makes a new key pair from the system's randomness.
    pub fn generate() -> std::io::Result<Identity> {
        let mut seed = Zeroizing::new([0; 32]);
        let random = provider::tls().secure_random;
        random.fill(&mut seed[..]).map_err(|_| std::io::Error::other("no random numbers"))?;
        Identity::from_seed(seed).map_err(std::io::Error::other)
    }

    fn from_seed(seed: Zeroizing<[u8; 32]>) -> Result<Identity, KeyParseError> {
        let key = load(&pkcs8(&seed)).ok_or(KeyParseError::Unusable)?;
        let spki = key.public_key().ok_or(KeyParseError::Unusable)?;
        let public = PublicKey::from_spki(&spki).ok_or(KeyParseError::Unusable)?;
        Ok(Identity { seed, public })
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// The private key as DER: PKCS#8 version 1.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        pkcs8(&self.seed)
    }

    /// Reads what [`Identity::to_pkcs8`] makes.
    pub fn from_pkcs8(der: &[u8]) -> Result<Identity, KeyParseError> {
        let seed = der.strip_prefix(&PKCS8_PREFIX).ok_or(KeyParseError::NotAPrivateKey)?;
        let seed: [u8; 32] = seed.try_into().map_err(|_| KeyParseError::NotAPrivateKey)?;
        Identity::from_seed(Zeroizing::new(seed))
    }

    /// The private key as the text of a PEM file.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let body = Zeroizing::new(BASE64.encode(&self.to_pkcs8()));
        Zeroizing::new(format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", *body))
    }

    /// Reads a PEM file with one key in it. Text before the key is passed over, as OpenSSL does.
    pub fn from_pem(text: &str) -> Result<Identity, KeyParseError> {
        let (_, after) = text.split_once(PEM_BEGIN).ok_or(KeyParseError::NotAPrivateKey)?;
        let (body, _) = after.split_once(PEM_END).ok_or(KeyParseError::NotAPrivateKey)?;
        let body = Zeroizing::new(body.split_ascii_whitespace().collect::<String>());
        let der = Zeroizing::new(BASE64.decode(body.as_bytes()).map_err(|_| KeyParseError::NotAPrivateKey)?);
        Identity::from_pkcs8(&der)
    }

    /// What the TLS library signs with.
    pub(super) fn certified_key(&self) -> Option<Arc<CertifiedKey>> {
        let key = load(&self.to_pkcs8())?;
        Some(Arc::new(CertifiedKey::new(vec![CertificateDer::from(self.public.to_spki())], key)))
    }
}

fn pkcs8(seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + seed.len()));
    der.extend_from_slice(&PKCS8_PREFIX);
    der.extend_from_slice(seed);
    der
}

fn load(der: &[u8]) -> Option<Arc<dyn rustls::sign::SigningKey>> {
    let copy = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der));
    provider::tls().key_provider.load_private_key(copy.clone_key()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 8032, section 7.1, test 1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn known() -> Identity {
        let hex = data_encoding::HEXLOWER.decode(SEED.as_bytes()).unwrap();
        Identity::from_seed(Zeroizing::new(hex.try_into().unwrap())).unwrap()
    }

    #[test]
    fn a_known_key_has_its_known_public_half_and_texts() {
        let identity = known();
        assert_eq!(data_encoding::HEXLOWER.encode(&identity.public_key().0), PUBLIC);
        assert_eq!(identity.public_key().to_string(), "xfer-ed25519 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        assert_eq!(
            identity.to_pem().as_str(),
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
             -----END PRIVATE KEY-----\n"
        );
        // sha256sum of the 32 bytes.
        assert_eq!(
            identity.public_key().fingerprint(),
            format!(
                "SHA256:{}",
                BASE64_NOPAD.encode(
                    &data_encoding::HEXLOWER
                        .decode(b"21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9")
                        .unwrap()
                )
            )
        );
    }

    #[test]
    fn keys_survive_their_files_and_stay_out_of_debug() {
        let identity = Identity::generate().unwrap();
        let pem = identity.to_pem();
        let again = Identity::from_pem(&format!("a comment\n{}", *pem)).unwrap();
        assert_eq!(again.public_key(), identity.public_key());
        assert_eq!(again.to_pkcs8(), identity.to_pkcs8());
        assert_ne!(Identity::generate().unwrap().public_key(), identity.public_key());
        let shown = format!("{identity:?}");
        assert!(!shown.contains("seed") && shown.contains(&BASE64.encode(&identity.public_key().0)), "{shown}");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "ssh-ed25519 AAAA", "xfer-ed25519", "AAAA"] {
            assert_eq!(text.parse::<PublicKey>(), Err(KeyParseError::NotAKey), "{text}");
        }
        let short = format!("{KEY_TYPE} {}", BASE64.encode(&[1; 31]));
        let good = known().public_key().to_string();
        for text in [short.as_str(), "xfer-ed25519 !", &good[..good.len() - 1], &format!("{good}=")] {
            assert_eq!(text.parse::<PublicKey>(), Err(KeyParseError::Damaged), "{text}");
        }
        let pem = known().to_pem();
        for text in ["", &pem[..60], &pem.replace("MC4", "MC5"), &pem.replace("PRIVATE", "EC PRIVATE")] {
            assert!(Identity::from_pem(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn public_keys_round_trip(bytes: [u8; 32]) {
            let key = PublicKey(bytes);
            prop_assert_eq!(key.to_string().parse(), Ok(key));
            prop_assert_eq!(PublicKey::from_spki(&key.to_spki()), Some(key));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,80}") {
            let _ = text.parse::<PublicKey>();
            let _ = Identity::from_pem(&text);
            let _ = Identity::from_pem(&format!("{PEM_BEGIN}{text}{PEM_END}"));
        }
    }
}
