//! Driving a handshake over a socket: one deadline, bounded bytes, and not one record read further than its end.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rustix::event::PollFlags;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus};
use rustls::{CommonState, Error, Tls13CipherSuite};

use super::super::PublicKey;
use super::super::wait::wait_until;
use super::records::{CIPHER_BYTES_MAX, HEADER_BYTES, Kernel};
use super::{TlsChannel, TlsError, told};
use crate::limits;

/// Either end's handshake.
pub(super) trait Handshake {
    type Data;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
}

impl Handshake for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
    fn common(&self) -> &CommonState {
        self
    }
}

impl Handshake for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
    fn common(&self) -> &CommonState {
        self
    }
}

/// What one step of the handshake asks for.
enum Step {
    Send,
    Receive,
    Done,
}

/// A socket with a handshake going on.
pub(super) struct Hands<'a> {
    stream: TcpStream,
    deadline: Instant,
    stop: &'a AtomicBool,
    incoming: Vec<u8>,
    /// Of `incoming`, what the library may see: whole records, one more only when it wants one. What follows the
    /// handshake's last record is for the record layer.
    shown: usize,
    received: usize,
    outgoing: Vec<u8>,
}

impl<'a> Hands<'a> {
    pub(super) fn new(stream: TcpStream, deadline: Instant, stop: &'a AtomicBool) -> Result<Hands<'a>, TlsError> {
        let prepare = |source| TlsError::Io { operation: "prepare", source };
        stream.set_nonblocking(true).map_err(prepare)?;
        stream.set_nodelay(true).map_err(prepare)?;
        Ok(Hands { stream, deadline, stop, incoming: Vec::new(), shown: 0, received: 0, outgoing: Vec::new() })
    }

    pub(super) fn channel(
        self,
        kernel: Kernel,
        suite: &'static Tls13CipherSuite,
        secrets: rustls::ExtractedSecrets,
        peer: PublicKey,
    ) -> TlsChannel {
        TlsChannel { stream: self.stream, kernel, suite, secrets, peer, early: self.incoming }
    }

    /// Goes on until both sides are done.
    pub(super) fn shake(&mut self, connection: &mut impl Handshake) -> Result<(), TlsError> {
        loop {
            let status = connection.process(&mut self.incoming[..self.shown]);
            let discard = status.discard;
            let step = match status.state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing).map(|()| None),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(Some(Step::Send))
                }
                Ok(ConnectionState::BlockedHandshake) => Ok(Some(Step::Receive)),
                Ok(ConnectionState::WriteTraffic(_)) => Ok(Some(Step::Done)),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => return Err(TlsError::Closed),
                Ok(_) => Err(Error::General("data before the handshake's end".to_owned())),
                Err(error) => Err(error),
            };
            self.incoming.drain(..discard);
            self.shown -= discard;
            match step {
                Ok(None) => {}
                Ok(Some(Step::Send)) => self.send()?,
                // One direction of a handshake can be ready for data before the other.
                Ok(Some(Step::Done)) if !connection.common().is_handshaking() => return Ok(()),
                Ok(Some(Step::Receive | Step::Done)) => self.show_record()?,
                Err(error) => {
                    self.say_why(connection);
                    return Err(told(error));
                }
            }
        }
    }

    /// Shows the library one record more.
    fn show_record(&mut self) -> Result<(), TlsError> {
        loop {
            if let Some(&[kind, major, _, high, low]) = self.incoming[self.shown..].first_chunk::<HEADER_BYTES>() {
                let length = usize::from(u16::from_be_bytes([high, low]));
                // Change cipher spec, alert, handshake, application data; "version" 3.x in all of them.
                if !(20..=23).contains(&kind) || major != 3 || length > CIPHER_BYTES_MAX {
                    return Err(TlsError::NotTls);
                }
                let end = self.shown + HEADER_BYTES + length;
                if self.incoming.len() >= end {
                    self.shown = end;
                    return Ok(());
                }
            } else if self.incoming.get(self.shown).is_some_and(|kind| !(20..=23).contains(kind)) {
                // A line of text may be shorter than a header.
                return Err(TlsError::NotTls);
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> Result<(), TlsError> {
        let room = limits::TLS_HANDSHAKE_BYTES_MAX.saturating_sub(self.received);
        if room == 0 {
            return Err(TlsError::TooLong);
        }
        let mut piece = [0; 4096];
        let room = room.min(piece.len());
        loop {
            match (&self.stream).read(&mut piece[..room]) {
                Ok(0) => return Err(TlsError::Closed),
                Ok(bytes) => {
                    self.received += bytes;
                    self.incoming.extend_from_slice(&piece[..bytes]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait_until(&self.stream, PollFlags::IN, self.deadline, self.stop)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_end(&error) => return Err(TlsError::Closed),
                Err(source) => return Err(TlsError::Io { operation: "read from", source }),
            }
        }
    }

    fn send(&mut self) -> Result<(), TlsError> {
        let mut sent = 0;
        while sent < self.outgoing.len() {
            match (&self.stream).write(&self.outgoing[sent..]) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait_until(&self.stream, PollFlags::OUT, self.deadline, self.stop)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_end(&error) => return Err(TlsError::Closed),
                Err(source) => return Err(TlsError::Io { operation: "write to", source }),
            }
        }
        self.outgoing.clear();
        Ok(())
    }

    /// Sends the alert that tells the other end what was wrong, if the socket takes it at once. Asked for with nothing
    /// to read, once: the library hands out what it wants to send before it looks at input.
    fn say_why(&mut self, connection: &mut impl Handshake) {
        self.outgoing.clear();
        if let Ok(ConnectionState::EncodeTlsData(data)) = connection.process(&mut []).state
            && encode(data, &mut self.outgoing).is_ok()
        {
            let _ = (&self.stream).write(&self.outgoing);
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) -> Result<(), Error> {
    let start = outgoing.len();
    let size = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return Ok(()),
    };
    outgoing.resize(start + size, 0);
    data.encode(&mut outgoing[start..]).map(|_| ()).map_err(|error| Error::General(error.to_string()))
}
