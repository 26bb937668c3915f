//! The record layer of an established TLS 1.3 connection (RFC 8446, sections 5 and 4.6.3), one half a direction.
//!
//! The handshake is rustls's. Afterwards its own ciphers are driven from here, because its connection type keeps both
//! directions under one lock and moves received data in pieces of 4 KiB through three buffers. Here reader and writer
//! share nothing but the secret from which the next keys come, and a byte is copied once.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, ConnectionTrafficSecrets, ContentType, ProtocolVersion, Tls13CipherSuite};

use crate::limits;

/// Bytes of a record's header: type, version, length.
pub(super) const HEADER_BYTES: usize = 5;
/// Bytes of plaintext in one record.
const PLAIN_BYTES_MAX: usize = 1 << 14;
/// Bytes of one record's ciphertext, header left out: RFC 8446 allows 256 more than the plaintext.
pub(super) const CIPHER_BYTES_MAX: usize = PLAIN_BYTES_MAX + 256;

/// A KeyUpdate message: type 24, length 1, and whether an update is wanted in return.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

/// Why a record cannot be made or read. The connection is of no use afterwards.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Decryption or the derivation of keys failed: most often, bytes were changed on the way.
    #[error("an encrypted record cannot be read or made: bytes were damaged or changed on the way")]
    Cipher(#[source] rustls::Error),
    /// The other end says why it gives up.
    #[error("the other end refused the connection: {}", alert_in_words(*.0))]
    Alert(AlertDescription),
    /// A record that has no place here.
    #[error("the other end broke the rules of TLS: {0}")]
    Unexpected(&'static str),
}

/// What an alert means for people.
pub(super) fn alert_in_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::AccessDenied
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA => "it does not accept our key".to_owned(),
        AlertDescription::CertificateRequired => "it wants a key, and we sent none".to_owned(),
        AlertDescription::ProtocolVersion => "no TLS version in common (1.3 is wanted)".to_owned(),
        AlertDescription::NoApplicationProtocol => "it does not speak xfer's protocol".to_owned(),
        AlertDescription::UnsupportedCertificate => "it does not take raw public keys".to_owned(),
        other => format!("TLS alert {}", u8::from(other)),
    }
}

/// The rest of rustls's connection: it derives the next keys.
pub(super) enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// What both directions share.
struct Schedule {
    kernel: Mutex<Kernel>,
    suite: &'static Tls13CipherSuite,
    /// The peer wants our sending keys replaced.
    update_wanted: AtomicBool,
}

impl Schedule {
    fn next(&self, derive: impl FnOnce(&mut Kernel) -> Secrets) -> Secrets {
        // Keys are replaced in one step: a thread that panicked before or after leaves a whole schedule.
        derive(&mut self.kernel.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

type Secrets = Result<(u64, ConnectionTrafficSecrets), rustls::Error>;

fn key_and_iv(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), RecordError> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(RecordError::Unexpected("an unknown cipher was agreed on")),
    }
}

/// Makes both halves from what the handshake left. `early` is ciphertext that was read with the handshake's end.
pub(super) fn halves(
    kernel: Kernel,
    suite: &'static Tls13CipherSuite,
    secrets: rustls::ExtractedSecrets,
    early: &[u8],
) -> Result<(Opener, Sealer), RecordError> {
    let schedule = Arc::new(Schedule { kernel: Mutex::new(kernel), suite, update_wanted: AtomicBool::new(false) });
    let (key, iv) = key_and_iv(secrets.tx.1)?;
    let sealer = Sealer {
        cipher: suite.aead_alg.encrypter(key, iv),
        sequence: secrets.tx.0,
        records_max: limits::TLS_RECORDS_PER_KEY_MAX.min(suite.common.confidentiality_limit),
        schedule: Arc::clone(&schedule),
    };
    let (key, iv) = key_and_iv(secrets.rx.1)?;
    let mut buffer = vec![0; limits::TLS_READ_BYTES.max(early.len())].into_boxed_slice();
    buffer[..early.len()].copy_from_slice(early);
    let opener = Opener {
        cipher: suite.aead_alg.decrypter(key, iv),
        sequence: secrets.rx.0,
        schedule,
        buffer,
        start: 0,
        end: early.len(),
        plain: 0..0,
        idle_records: 0,
        closed: false,
        failed: false,
    };
    Ok((opener, sealer))
}

/// The sending half: plaintext in, whole records out.
pub(in crate::net) struct Sealer {
    cipher: Box<dyn MessageEncrypter>,
    /// Number of the next record under this key; never used twice.
    sequence: u64,
    records_max: u64,
    schedule: Arc<Schedule>,
}

impl Sealer {
    /// Encrypts the bytes `range` of `parts` taken together into as few records as they fit.
    pub(in crate::net) fn seal(
        &mut self,
        parts: [&[u8]; 2],
        range: Range<usize>,
        records: &mut Vec<Vec<u8>>,
    ) -> Result<(), RecordError> {
        let mut start = range.start;
        while start < range.end {
            if self.sequence >= self.records_max || self.schedule.update_wanted.swap(false, Ordering::Relaxed) {
                self.replace_key(records)?;
            }
            let end = (start + PLAIN_BYTES_MAX).min(range.end);
            let payload = OutboundChunks::Multiple { chunks: &parts, start, end };
            records.push(self.record(ContentType::ApplicationData, payload)?);
            start = end;
        }
        Ok(())
    }

    /// The record that says that no more will come.
    pub(in crate::net) fn close_notify(&mut self) -> Result<Vec<u8>, RecordError> {
        // A warning (1) with description 0.
        self.record(ContentType::Alert, OutboundChunks::Single(&[1, 0]))
    }

    fn record(&mut self, typ: ContentType, payload: OutboundChunks<'_>) -> Result<Vec<u8>, RecordError> {
        let sequence = self.sequence;
        self.sequence = sequence.checked_add(1).ok_or(RecordError::Unexpected("record numbers ran out"))?;
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        self.cipher.encrypt(message, sequence).map(|record| record.encode()).map_err(RecordError::Cipher)
    }

    /// Replaces the key after so many records.
    #[cfg(test)]
    pub(super) fn replace_key_every(&mut self, records: u64) {
        self.records_max = records;
    }

    pub(super) fn replace_key(&mut self, records: &mut Vec<Vec<u8>>) -> Result<(), RecordError> {
        let [kind, a, b, c] = KEY_UPDATE;
        let message = [kind, a, b, c, UPDATE_NOT_REQUESTED];
        records.push(self.record(ContentType::Handshake, OutboundChunks::Single(&message))?);
        let next = self.schedule.next(|kernel| match kernel {
            Kernel::Client(kernel) => kernel.update_tx_secret(),
            Kernel::Server(kernel) => kernel.update_tx_secret(),
        });
        let (sequence, secrets) = next.map_err(RecordError::Cipher)?;
        let (key, iv) = key_and_iv(secrets)?;
        self.cipher = self.schedule.suite.aead_alg.encrypter(key, iv);
        self.sequence = sequence;
        Ok(())
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Sealer").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// What is left of `records` after the first `sent` bytes, for a gathering write of at most `IOV_MAX` pieces.
pub(in crate::net) fn unsent(records: &[Vec<u8>], mut sent: usize) -> Vec<IoSlice<'_>> {
    let mut slices = Vec::with_capacity(records.len());
    for record in records {
        let skipped = sent.min(record.len());
        sent -= skipped;
        if skipped < record.len() && slices.len() < 1024 {
            slices.push(IoSlice::new(&record[skipped..]));
        }
    }
    slices
}

/// What the receiving half can say without another byte from the socket.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::net) enum Opened {
    /// So many bytes were put into the caller's buffer.
    Bytes(usize),
    /// A whole record is not there yet.
    NeedsMore,
    /// The peer said that no more will come.
    Closed,
}

/// The receiving half: whatever the socket brings in, plaintext out. Records are decrypted in its own buffer.
pub(in crate::net) struct Opener {
    cipher: Box<dyn MessageDecrypter>,
    sequence: u64,
    schedule: Arc<Schedule>,
    buffer: Box<[u8]>,
    /// Ciphertext not looked at yet: `start..end` of the buffer.
    start: usize,
    end: usize,
    /// Plaintext not handed out yet: always before `start`.
    plain: Range<usize>,
    idle_records: u32,
    closed: bool,
    failed: bool,
}

impl Opener {
    /// Hands out plaintext of one record at most.
    pub(in crate::net) fn open(&mut self, into: &mut [u8]) -> Result<Opened, RecordError> {
        loop {
            if !self.plain.is_empty() {
                let taken = self.plain.len().min(into.len());
                let end = self.plain.start + taken;
                into[..taken].copy_from_slice(&self.buffer[self.plain.start..end]);
                self.plain.start = end;
                return Ok(Opened::Bytes(taken));
            }
            if self.closed {
                return Ok(Opened::Closed);
            }
            if self.failed {
                return Err(RecordError::Unexpected("data after a failure"));
            }
            match self.next_record() {
                Ok(true) => {}
                Ok(false) => return Ok(Opened::NeedsMore),
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
    }

    /// Where the next bytes from the socket go: never empty, as no record is as long as the buffer.
    pub(in crate::net) fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            self.plain = 0..0;
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were put into [`Opener::space`].
    pub(in crate::net) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// Takes one record; false where it is not there whole.
    fn next_record(&mut self) -> Result<bool, RecordError> {
        let Some((header, body)) = self.buffer[self.start..self.end].split_first_chunk_mut::<HEADER_BYTES>() else {
            return Ok(false);
        };
        // Nothing is sent in clear after the handshake: other types are a forgery, or not TLS.
        if header[0] != u8::from(ContentType::ApplicationData) {
            return Err(RecordError::Unexpected("a record that is not encrypted"));
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length > CIPHER_BYTES_MAX {
            return Err(RecordError::Unexpected("a record longer than allowed"));
        }
        let Some(payload) = body.get_mut(..length) else { return Ok(false) };
        let payload_start = self.start + HEADER_BYTES;
        self.start = payload_start + length;
        let sequence = self.sequence;
        self.sequence = sequence.checked_add(1).ok_or(RecordError::Unexpected("record numbers ran out"))?;
        let opaque = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload);
        let message = self.cipher.decrypt(opaque, sequence).map_err(RecordError::Cipher)?;
        match message.typ {
            ContentType::ApplicationData if !message.payload.is_empty() => {
                // Decryption is in place: the plaintext stands where its ciphertext stood.
                self.plain = payload_start..payload_start + message.payload.len();
                self.idle_records = 0;
                return Ok(true);
            }
            ContentType::ApplicationData => {}
            ContentType::Handshake => {
                let request = match *message.payload {
                    [a, b, c, d, request] if [a, b, c, d] == KEY_UPDATE => request,
                    _ => return Err(RecordError::Unexpected("a handshake message other than a key update")),
                };
                match request {
                    UPDATE_NOT_REQUESTED => {}
                    UPDATE_REQUESTED => self.schedule.update_wanted.store(true, Ordering::Relaxed),
                    _ => return Err(RecordError::Unexpected("a malformed key update")),
                }
                self.replace_key()?;
            }
            ContentType::Alert => match *message.payload {
                [_, description] => match AlertDescription::from(description) {
                    AlertDescription::CloseNotify => self.closed = true,
                    AlertDescription::UserCanceled => {}
                    alert => return Err(RecordError::Alert(alert)),
                },
                _ => return Err(RecordError::Unexpected("a malformed alert")),
            },
            _ => return Err(RecordError::Unexpected("a record of an unknown type")),
        }
        self.idle_records += 1;
        if self.idle_records > limits::TLS_IDLE_RECORDS_MAX {
            return Err(RecordError::Unexpected("too many records without data"));
        }
        Ok(true)
    }

    fn replace_key(&mut self) -> Result<(), RecordError> {
        let next = self.schedule.next(|kernel| match kernel {
            Kernel::Client(kernel) => kernel.update_rx_secret(),
            Kernel::Server(kernel) => kernel.update_rx_secret(),
        });
        let (sequence, secrets) = next.map_err(RecordError::Cipher)?;
        let (key, iv) = key_and_iv(secrets)?;
        self.cipher = self.schedule.suite.aead_alg.decrypter(key, iv);
        self.sequence = sequence;
        Ok(())
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Opener").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}
