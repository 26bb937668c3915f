//! TLS 1.3 between two owners of Ed25519 keys: raw public keys (RFC 7250), both sides, pinned. No certificates, no
//! tickets, no resumption, no early data. rustls shakes hands; [`records`] carries the data afterwards.

mod hands;
pub(super) mod provider;
pub(super) mod records;
#[cfg(test)]
mod tests;
mod verify;

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption, UnbufferedClientConnection};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, UnbufferedServerConnection};
use rustls::{
    CertificateError, ClientConfig, Error, InvalidMessage, PeerIncompatible, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion, Tls13CipherSuite,
};

use super::wait::WaitError;
use super::{Identity, LinkReader, LinkWriter, PublicKey};
use crate::limits;
use hands::Hands;
pub use records::RecordError;
use records::{Kernel, alert_in_words};

/// The application protocol (ALPN) of every connection.
const PROTOCOL: &[u8] = b"xfer/1";

const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Which key the other end has to prove that it owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKey {
    /// This one and no other.
    Exactly(PublicKey),
    /// Any: who it is, and what it may do, is decided by the caller from [`TlsChannel::peer_key`] before anything
    /// else is said.
    Any,
}

/// Why no encrypted connection came about.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The deadline passed.
    #[error("the other end did not finish the TLS handshake in time")]
    TimedOut,
    /// The stop flag was raised.
    #[error("stopped")]
    Stopped,
    /// The TCP connection ended.
    #[error("the other end closed the connection during the TLS handshake")]
    Closed,
    /// What came is no TLS: plain text, or another protocol.
    #[error("the other end does not speak TLS: is this the port of an xfer?")]
    NotTls,
    /// TLS, but not 1.3.
    #[error("the other end does not speak TLS 1.3")]
    Version,
    /// TLS 1.3, but the peer is no `xfer`.
    #[error("the other end speaks TLS, but not xfer's protocol")]
    NotXfer,
    /// The client sent no key.
    #[error("the other end sent no key")]
    NoKey,
    /// A certificate, or a key that is not Ed25519.
    #[error("the other end sent something else than a raw Ed25519 public key")]
    NotRawKey,
    /// Another key than the pinned one.
    #[error(
        "the other end has the key {} where {} is expected: it is another host, or its key was changed",
        presented.fingerprint(), expected.fingerprint()
    )]
    WrongKey {
        /// The pinned key.
        expected: PublicKey,
        /// What the other end has; it has not yet proven to own it.
        presented: PublicKey,
    },
    /// The peer gave up and said why.
    #[error("the other end refused the connection: {reason}")]
    Refused {
        /// In words.
        reason: String,
    },
    /// The handshake is longer than any honest one.
    #[error("the other end sent more than {} bytes of TLS handshake", limits::TLS_HANDSHAKE_BYTES_MAX)]
    TooLong,
    /// The peer broke the protocol in another way.
    #[error("the TLS handshake failed")]
    Protocol(#[source] Error),
    /// The keys of the connection could not be set up.
    #[error("the encrypted connection cannot be set up")]
    Setup(#[source] RecordError),
    /// A system error.
    #[error("cannot {operation} the connection")]
    Io {
        /// `read from`, `write to`, `prepare`.
        operation: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl From<WaitError> for TlsError {
    fn from(error: WaitError) -> TlsError {
        match error {
            WaitError::TimedOut => TlsError::TimedOut,
            WaitError::Stopped => TlsError::Stopped,
            WaitError::Io(source) => TlsError::Io { operation: "wait for", source },
        }
    }
}

/// Sorts rustls's errors into those that people can act on.
fn told(error: Error) -> TlsError {
    match error {
        Error::NoCertificatesPresented => TlsError::NoKey,
        Error::AlertReceived(alert) => TlsError::Refused { reason: alert_in_words(alert) },
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            TlsError::NotTls
        }
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => TlsError::Version,
        Error::PeerIncompatible(
            PeerIncompatible::IncorrectCertificateTypeExtension | PeerIncompatible::UnsolicitedCertificateTypeExtension,
        ) => TlsError::NotRawKey,
        Error::NoApplicationProtocol => TlsError::NotXfer,
        Error::InvalidCertificate(CertificateError::Other(ref other)) => {
            if let Some(mismatch) = other.0.downcast_ref::<verify::Mismatch>() {
                return TlsError::WrongKey { expected: mismatch.expected, presented: mismatch.presented };
            }
            if other.0.is::<verify::NotRaw>() {
                return TlsError::NotRawKey;
            }
            TlsError::Protocol(error)
        }
        error => TlsError::Protocol(error),
    }
}

/// A connection whose both ends have proven to own their keys.
pub struct TlsChannel {
    stream: TcpStream,
    kernel: Kernel,
    suite: &'static Tls13CipherSuite,
    secrets: rustls::ExtractedSecrets,
    peer: PublicKey,
    /// Ciphertext that came with the handshake's end.
    early: Vec<u8>,
}

impl std::fmt::Debug for TlsChannel {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TlsChannel").field("stream", &self.stream).field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl TlsChannel {
    /// The key that the other end has proven to own.
    pub fn peer_key(&self) -> PublicKey {
        self.peer
    }

    /// The TCP connection, for its addresses and options; its bytes belong to the channel.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Lets the kernel end the connection when nothing is heard from the other end for so long, idle or not; see
    /// [`super::set_path_timeout`].
    pub fn set_path_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        super::set_path_timeout(&self.stream, timeout)
    }

    /// Both directions, for two threads that never wait for each other. `stop` ends every wait.
    pub fn into_link(self, stop: Arc<AtomicBool>) -> io::Result<(LinkReader, LinkWriter)> {
        let (opener, sealer) =
            records::halves(self.kernel, self.suite, self.secrets, &self.early).map_err(io::Error::other)?;
        let reader = LinkReader::over_tls(self.stream.try_clone()?, opener, Arc::clone(&stop))?;
        let writer = LinkWriter::over_tls(self.stream, sealer, stop)?;
        Ok((reader, writer))
    }
}

/// Shakes hands as the end that connected. `deadline` is one for all of it.
pub fn tls_connect(
    stream: TcpStream,
    identity: &Identity,
    peer: PeerKey,
    deadline: Instant,
    stop: &AtomicBool,
) -> Result<TlsChannel, TlsError> {
    let config = client_config(identity, peer)?;
    // A name is wanted by the library; it is neither sent nor looked at.
    let name = rustls::pki_types::ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]));
    let mut connection = UnbufferedClientConnection::new(Arc::new(config), name).map_err(TlsError::Protocol)?;
    let mut hands = Hands::new(stream, deadline, stop)?;
    hands.shake(&mut connection)?;
    let peer = agreed(&connection)?;
    let (secrets, kernel) = connection.dangerous_into_kernel_connection().map_err(TlsError::Protocol)?;
    let suite = tls13(kernel.negotiated_cipher_suite())?;
    Ok(hands.channel(Kernel::Client(kernel), suite, secrets, peer))
}

/// Shakes hands as the end that was connected to. `deadline` is one for all of it: a peer that sends one byte now and
/// then gains nothing.
pub fn tls_accept(
    stream: TcpStream,
    identity: &Identity,
    peer: PeerKey,
    deadline: Instant,
    stop: &AtomicBool,
) -> Result<TlsChannel, TlsError> {
    let config = server_config(identity, peer)?;
    let mut connection = UnbufferedServerConnection::new(Arc::new(config)).map_err(TlsError::Protocol)?;
    let mut hands = Hands::new(stream, deadline, stop)?;
    hands.shake(&mut connection)?;
    let peer = agreed(&connection)?;
    let (secrets, kernel) = connection.dangerous_into_kernel_connection().map_err(TlsError::Protocol)?;
    let suite = tls13(kernel.negotiated_cipher_suite())?;
    Ok(hands.channel(Kernel::Server(kernel), suite, secrets, peer))
}

fn client_config(identity: &Identity, peer: PeerKey) -> Result<ClientConfig, TlsError> {
    let certified = identity.certified_key().ok_or_else(no_key)?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider::tls()))
        .with_protocol_versions(VERSIONS)
        .map_err(TlsError::Protocol)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::Pin(peer)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config.enable_secret_extraction = true;
    Ok(config)
}

fn server_config(identity: &Identity, peer: PeerKey) -> Result<ServerConfig, TlsError> {
    let certified = identity.certified_key().ok_or_else(no_key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider::tls()))
        .with_protocol_versions(VERSIONS)
        .map_err(TlsError::Protocol)?
        .with_client_cert_verifier(Arc::new(verify::Pin(peer)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.enable_secret_extraction = true;
    Ok(config)
}

fn no_key() -> TlsError {
    TlsError::Protocol(Error::General("the private key cannot be used".to_owned()))
}

fn tls13(suite: SupportedCipherSuite) -> Result<&'static Tls13CipherSuite, TlsError> {
    suite.tls13().ok_or(TlsError::Version)
}

/// What both ends must have in common, apart from what the library sees to.
fn agreed(connection: &rustls::CommonState) -> Result<PublicKey, TlsError> {
    if connection.alpn_protocol() != Some(PROTOCOL) {
        return Err(TlsError::NotXfer);
    }
    let key = connection.peer_certificates().and_then(<[_]>::first).ok_or(TlsError::NoKey)?;
    PublicKey::from_spki(key).ok_or(TlsError::NotRawKey)
}
