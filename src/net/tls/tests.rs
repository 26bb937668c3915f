use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::super::{Identity, LaneListener, LinkError, LinkReader, LinkWriter, connect_tcp};
use super::*;
use crate::limits;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn flag() -> Arc<AtomicBool> {
    Arc::default()
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = LaneListener::bind(None, Some([127, 0, 0, 1].into())).unwrap();
    let client = connect_tcp("127.0.0.1", listener.port(), b"", soon(), &flag()).unwrap();
    let (server, _) = listener.accept(soon(), &flag()).unwrap();
    (client, server)
}

/// Both ends' outcomes with the given pins.
fn handshake(
    client: (&Identity, PeerKey),
    server: (&Identity, PeerKey),
) -> (Result<TlsChannel, TlsError>, Result<TlsChannel, TlsError>) {
    let (near, far) = sockets();
    thread::scope(|scope| {
        let accepting = scope.spawn(|| tls_accept(far, server.0, server.1, soon(), &flag()));
        let connected = tls_connect(near, client.0, client.1, soon(), &flag());
        (connected, accepting.join().unwrap())
    })
}

fn channels() -> (TlsChannel, TlsChannel) {
    let (client, server) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let pins = (PeerKey::Exactly(server.public_key()), PeerKey::Exactly(client.public_key()));
    let (near, far) = handshake((&client, pins.0), (&server, pins.1));
    (near.unwrap(), far.unwrap())
}

fn links() -> [(LinkReader, LinkWriter); 2] {
    let (near, far) = channels();
    [near.into_link(flag()).unwrap(), far.into_link(flag()).unwrap()]
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

#[test]
fn both_ends_know_each_other_and_bytes_pass_both_ways_at_once() {
    let (client, server) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (near, far) = handshake((&client, PeerKey::Any), (&server, PeerKey::Any));
    let (near, far) = (near.unwrap(), far.unwrap());
    assert_eq!(near.peer_key(), server.public_key());
    assert_eq!(far.peer_key(), client.public_key());
    let [mut near, mut far] = [near, far].map(|channel| channel.into_link(flag()).unwrap());
    let (header, payload) = (pattern(9), pattern(3 << 20));
    thread::scope(|scope| {
        for (reader, writer) in [(&mut near.0, &mut far.1), (&mut far.0, &mut near.1)] {
            scope.spawn(|| {
                for _ in 0..5 {
                    writer.write_vectored(&header, &payload).unwrap();
                }
            });
            scope.spawn(|| {
                for _ in 0..5 {
                    let mut got = vec![0; header.len() + payload.len()];
                    reader.read_exact(&mut got).unwrap();
                    assert!(got[..9] == header && got[9..] == payload);
                }
            });
        }
    });
    near.1.close().unwrap();
    assert!(matches!(far.0.read_some(&mut [0; 8]), Err(LinkError::Closed)));
}
