use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::AlertDescription;

use super::super::{Identity, LaneListener, LinkError, LinkReader, LinkWriter, Throttle, connect_tcp};
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

/// The same with blocking sockets, for a peer that is no `xfer`.
fn raw_peer() -> (TcpStream, TcpStream) {
    let (ours, peer) = sockets();
    peer.set_nonblocking(false).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (ours, peer)
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

fn identity() -> Identity {
    Identity::generate().unwrap()
}

fn channels() -> (TlsChannel, TlsChannel) {
    let (client, server) = (identity(), identity());
    let pins = (PeerKey::Exactly(server.public_key()), PeerKey::Exactly(client.public_key()));
    let (near, far) = handshake((&client, pins.0), (&server, pins.1));
    (near.unwrap(), far.unwrap())
}

fn links() -> [(LinkReader, LinkWriter); 2] {
    let (near, far) = channels();
    [near.into_link(flag()).unwrap(), far.into_link(flag()).unwrap()]
}

/// A reader of ours, and the bare socket through which its peer, or somebody in between, may say anything.
fn reader_and_wire() -> (LinkReader, LinkWriter, TcpStream) {
    let (near, far) = channels();
    let wire = far.stream().try_clone().unwrap();
    wire.set_nonblocking(false).unwrap();
    let (reader, _writer) = near.into_link(flag()).unwrap();
    let (_reader, writer) = far.into_link(flag()).unwrap();
    (reader, writer, wire)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

#[test]
fn both_ends_know_each_other_and_bytes_pass_both_ways_at_once() {
    let (client, server) = (identity(), identity());
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
    assert!(matches!(far.0.read_some(&mut [0; 8]), Err(LinkError::Closed)));
    // One direction has ended; the other has not.
    far.1.write_all(b"still here").unwrap();
    near.0.read_exact(&mut [0; 10]).unwrap();
}

#[test]
fn a_reader_is_served_while_its_writer_is_blocked() {
    let [(mut near_reader, mut near_writer), (far_reader, mut far_writer)] = links();
    let blocked = thread::spawn(move || {
        // More than all buffers hold, and nobody reads it.
        near_writer.write_all(&vec![0; 64 << 20])
    });
    for number in 0..100_u8 {
        far_writer.write_all(&[number]).unwrap();
        let mut got = [0];
        near_reader.read_exact(&mut got).unwrap();
        assert_eq!(got, [number]);
    }
    assert!(!blocked.is_finished());
    drop((far_reader, far_writer));
    assert!(blocked.join().unwrap().is_err());
}

#[test]
fn the_first_data_may_come_with_the_last_of_the_handshake() {
    let (client, server) = (identity(), identity());
    let (near, far) = sockets();
    let (near, far) = thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let channel = tls_connect(near, &client, PeerKey::Any, soon(), &flag()).unwrap();
            let (reader, mut writer) = channel.into_link(flag()).unwrap();
            writer.write_all(b"at once").unwrap();
            (reader, writer)
        });
        // By now the client's last flight and its first data have to be read one after the other.
        let accepting = scope.spawn(|| tls_accept(far, &server, PeerKey::Any, soon(), &flag()).unwrap());
        (connecting.join().unwrap(), accepting.join().unwrap())
    });
    let (mut reader, _writer) = far.into_link(flag()).unwrap();
    let mut got = [0; 7];
    reader.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"at once");
    drop(near);
}

#[test]
fn another_key_than_the_pinned_one_is_refused_by_either_side() {
    let (client, server, other) = (identity(), identity(), identity());
    let pin = PeerKey::Exactly(other.public_key());
    let (near, far) = handshake((&client, pin), (&server, PeerKey::Any));
    let error = near.unwrap_err();
    assert!(
        matches!(error, TlsError::WrongKey { expected, presented }
            if expected == other.public_key() && presented == server.public_key()),
        "{error:?}"
    );
    assert!(error.to_string().contains(&server.public_key().fingerprint()), "{error}");
    let error = far.unwrap_err();
    assert!(matches!(&error, TlsError::Refused { reason } if reason.contains("key")), "{error:?}");

    // A client's handshake is over before the server has seen its key: it hears of it with the first read.
    let (near, far) = handshake((&client, PeerKey::Any), (&server, pin));
    assert!(matches!(far.unwrap_err(), TlsError::WrongKey { presented, .. } if presented == client.public_key()));
    let (mut reader, _writer) = near.unwrap().into_link(flag()).unwrap();
    let error = reader.read_some(&mut [0; 8]).unwrap_err();
    assert!(matches!(error, LinkError::Tls(RecordError::Alert(AlertDescription::CertificateUnknown))), "{error:?}");
}

/// What our end says to a peer that sends `bytes` and then waits, as server and as client.
fn outcome_of(bytes: &[u8]) -> [TlsError; 2] {
    [true, false].map(|accepts| {
        let (ours, mut peer) = raw_peer();
        peer.write_all(bytes).unwrap();
        let end = if accepts { tls_accept } else { tls_connect };
        end(ours, &identity(), PeerKey::Any, soon(), &flag()).unwrap_err()
    })
}

#[test]
fn plain_text_is_told_as_such() {
    for text in ["GET / HTTP/1.1\r\n\r\n", "SSH-2.0-OpenSSH_9.6\r\n", "x", "\0\0\0\0\0\0"] {
        for error in outcome_of(text.as_bytes()) {
            assert!(matches!(error, TlsError::NotTls), "{text}: {error:?}");
        }
    }
}

/// A handshake record with one message in it.
fn handshake_record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![22, 3, 1];
    record.extend_from_slice(&(body.len() as u16 + 4).to_be_bytes());
    record.push(kind);
    record.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    record.extend_from_slice(body);
    record
}

#[test]
fn tls_1_2_is_refused_by_either_side() {
    // ClientHello: version, random, no session, one cipher, no compression; signature algorithms and groups as its
    // extensions, but no supported_versions.
    let mut hello = vec![3, 3];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions = [0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 29];
    hello.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    hello.extend_from_slice(&extensions);
    let [accepted, _] = outcome_of(&handshake_record(1, &hello));
    assert!(matches!(accepted, TlsError::Version), "{accepted:?}");

    // ServerHello of TLS 1.2: version, random, no session, a cipher, no compression, no extensions.
    let mut hello = vec![3, 3];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0xc0, 0x2b, 0]);
    let [_, connected] = outcome_of(&handshake_record(2, &hello));
    assert!(matches!(connected, TlsError::Version), "{connected:?}");

    // What a server that cannot do 1.3 says first: alert 70, protocol_version.
    let [_, connected] = outcome_of(&[21, 3, 3, 0, 2, 2, 70]);
    assert!(matches!(&connected, TlsError::Refused { reason } if reason.contains("1.3")), "{connected:?}");
}

#[test]
fn an_endless_handshake_and_a_slow_one_end() {
    // A ClientHello that claims 65,000 bytes, in records that all go on.
    let mut hello = vec![22, 3, 1, 0x40, 0x00, 1, 0, 0xfd, 0xe8];
    hello.resize(5 + 0x4000, 0);
    for _ in 0..4 {
        hello.extend_from_slice(&[22, 3, 1, 0x40, 0x00]);
        hello.resize(hello.len() + 0x4000, 0);
    }
    let [accepted, _] = outcome_of(&hello);
    assert!(matches!(accepted, TlsError::TooLong | TlsError::Protocol(_)), "{accepted:?}");

    let (ours, mut peer) = raw_peer();
    let over = flag();
    thread::scope(|scope| {
        scope.spawn(|| {
            // One byte now and then: each read brings something, and still it ends.
            let hello = handshake_record(1, &[0; 1000]);
            for byte in hello.iter().cycle() {
                if over.load(Ordering::Relaxed) || peer.write_all(&[*byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        let deadline = Instant::now() + Duration::from_millis(300);
        let error = tls_accept(ours, &identity(), PeerKey::Any, deadline, &flag()).unwrap_err();
        over.store(true, Ordering::Relaxed);
        assert!(matches!(error, TlsError::TimedOut), "{error:?}");
    });

    let (ours, peer) = raw_peer();
    let stop = AtomicBool::new(true);
    let stopped = tls_accept(ours, &identity(), PeerKey::Any, soon(), &stop).unwrap_err();
    assert!(matches!(stopped, TlsError::Stopped), "{stopped:?}");
    drop(peer);
    let (ours, peer) = raw_peer();
    drop(peer);
    let closed = tls_accept(ours, &identity(), PeerKey::Any, soon(), &flag()).unwrap_err();
    assert!(matches!(closed, TlsError::Closed), "{closed:?}");
}

/// rustls's own client at the other end, with its configuration changed.
fn foreign_client(change: impl FnOnce(&mut ClientConfig)) -> TlsError {
    let (ours, mut peer) = raw_peer();
    let mut config = client_config(&identity(), PeerKey::Any).unwrap();
    change(&mut config);
    let name = rustls::pki_types::ServerName::try_from("peer").unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            while connection.complete_io(&mut peer).is_ok() && connection.is_handshaking() {}
            // Stays until our end has made up its mind.
            let _ = peer.read(&mut [0; 64]);
        });
        tls_accept(ours, &identity(), PeerKey::Any, soon(), &flag()).unwrap_err()
    })
}

#[test]
fn clients_without_a_key_or_with_another_protocol_are_refused() {
    let keyless = foreign_client(|config| {
        *config = ClientConfig::builder_with_provider(Arc::clone(provider::tls()))
            .with_protocol_versions(VERSIONS)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verify::Pin(PeerKey::Any)))
            .with_no_client_auth();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
    });
    assert!(matches!(keyless, TlsError::NoKey | TlsError::NotRawKey), "{keyless:?}");
    let other = foreign_client(|config| config.alpn_protocols = vec![b"h2".to_vec()]);
    assert!(matches!(other, TlsError::NotXfer), "{other:?}");
    let none = foreign_client(|config| config.alpn_protocols.clear());
    assert!(matches!(none, TlsError::NotXfer), "{none:?}");
}

#[test]
fn the_record_layer_agrees_with_rustls_and_replaces_keys_when_asked() {
    let (client, server) = (identity(), identity());
    let (ours, mut peer) = raw_peer();
    let mut connection =
        rustls::ServerConnection::new(Arc::new(server_config(&server, PeerKey::Any).unwrap())).unwrap();
    let data = pattern(300_000);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = rustls::Stream::new(&mut connection, &mut peer);
            for round in 0..3 {
                let mut got = vec![0; data.len()];
                stream.read_exact(&mut got).unwrap();
                assert!(got == data, "round {round}");
                // Ours has to be replaced in return, before its next data.
                stream.conn.refresh_traffic_keys().unwrap();
                stream.write_all(&data).unwrap();
            }
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "a clean end");
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        });
        let pin = PeerKey::Exactly(server.public_key());
        let channel = tls_connect(ours, &client, pin, soon(), &flag()).unwrap();
        let (mut reader, mut writer) = channel.into_link(flag()).unwrap();
        for round in 0..3 {
            writer.write_all(&data).unwrap();
            let mut got = vec![0; data.len()];
            reader.read_exact(&mut got).unwrap();
            assert!(got == data, "round {round}");
        }
        writer.close().unwrap();
        assert!(matches!(reader.read_some(&mut [0; 1]), Err(LinkError::Closed)));
    });
}

#[test]
fn keys_are_replaced_by_themselves_after_so_many_records() {
    let (near, far) = channels();
    let (opener, mut sealer) = records::halves(near.kernel, near.suite, near.secrets, &near.early).unwrap();
    sealer.replace_key_every(3);
    let mut writer = LinkWriter::over_tls(near.stream.try_clone().unwrap(), sealer, flag()).unwrap();
    let (mut reader, _writer) = far.into_link(flag()).unwrap();
    let (data, counted) = (pattern(1 << 20), writer.byte_counter());
    thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&data).unwrap());
        let mut got = vec![0; data.len()];
        reader.read_exact(&mut got).unwrap();
        assert!(got == data);
    });
    // 64 records of data, and a key update (5 + 5 + 1 + 16 bytes) after every third record, itself among them.
    let overhead = counted.load(Ordering::Relaxed) - data.len() as u64;
    assert!(overhead > 64 * 22 + 15 * 27, "{overhead}");
    drop(opener);
}

#[test]
fn an_end_without_a_word_is_a_cut() {
    let (mut reader, mut writer, wire) = reader_and_wire();
    writer.write_all(b"abc").unwrap();
    wire.shutdown(Shutdown::Both).unwrap();
    reader.read_exact(&mut [0; 3]).unwrap();
    assert!(matches!(reader.read_some(&mut [0; 1]), Err(LinkError::Truncated)));

    // In the middle of a record, too.
    let (mut reader, _writer, mut wire) = reader_and_wire();
    wire.write_all(&[23, 3, 3, 1, 0, 9, 9]).unwrap();
    wire.shutdown(Shutdown::Both).unwrap();
    assert!(matches!(reader.read_some(&mut [0; 1]), Err(LinkError::Truncated)));
}

#[test]
fn forged_records_are_refused_and_stay_refused() {
    let forgeries: [&[u8]; 6] = [
        // A "close_notify" in clear: whoever could forge the end could truncate a file.
        &[21, 3, 3, 0, 2, 1, 0],
        &[20, 3, 3, 0, 1, 1],
        &[22, 3, 3, 0, 5, 24, 0, 0, 1, 0],
        b"hello, this is no TLS",
        // Encrypted by somebody without the key; shorter than a tag; longer than allowed.
        &[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
        &[23, 3, 3, 0xff, 0xff],
    ];
    for forgery in forgeries {
        let (mut reader, mut writer, mut wire) = reader_and_wire();
        writer.write_all(b"abc").unwrap();
        wire.write_all(forgery).unwrap();
        let _ = writer.write_all(b"after");
        reader.read_exact(&mut [0; 3]).unwrap();
        for _ in 0..2 {
            let error = reader.read_some(&mut [0; 9]).unwrap_err();
            assert!(matches!(error, LinkError::Tls(_)), "{forgery:?}: {error:?}");
        }
    }
}

#[test]
fn records_cannot_be_replayed_dropped_or_reordered() {
    let (near, far) = channels();
    let (_opener, mut sealer) = records::halves(near.kernel, near.suite, near.secrets, &near.early).unwrap();
    let mut sealed = Vec::new();
    for text in [b"one", b"two"] {
        sealer.seal([text, b""], 0..3, &mut sealed).unwrap();
    }
    let (mut reader, _writer) = far.into_link(flag()).unwrap();
    let mut wire = near.stream;
    wire.set_nonblocking(false).unwrap();
    wire.write_all(&sealed[0]).unwrap();
    reader.read_exact(&mut [0; 3]).unwrap();
    wire.write_all(&sealed[0]).unwrap();
    wire.write_all(&sealed[1]).unwrap();
    assert!(matches!(reader.read_some(&mut [0; 3]), Err(LinkError::Tls(RecordError::Cipher(_)))));
}

#[test]
fn a_peer_that_sends_nothing_in_many_records_is_refused() {
    let (near, far) = channels();
    let (_opener, mut sealer) = records::halves(near.kernel, near.suite, near.secrets, &near.early).unwrap();
    let (mut reader, _writer) = far.into_link(flag()).unwrap();
    sealer.replace_key_every(0);
    let mut wire = near.stream;
    wire.set_nonblocking(false).unwrap();
    let mut sealed = Vec::new();
    // A key update and one byte of data: any number of them is fine.
    for _ in 0..3 * limits::TLS_IDLE_RECORDS_MAX {
        sealer.seal([b"x", b""], 0..1, &mut sealed).unwrap();
    }
    wire.write_all(&sealed.concat()).unwrap();
    reader.read_exact(&mut vec![0; 3 * limits::TLS_IDLE_RECORDS_MAX as usize]).unwrap();
    // Key updates alone are not.
    sealed.clear();
    for _ in 0..=limits::TLS_IDLE_RECORDS_MAX {
        sealer.replace_key(&mut sealed).unwrap();
    }
    wire.write_all(&sealed.concat()).unwrap();
    let error = reader.read_some(&mut [0; 1]).unwrap_err();
    assert!(matches!(error, LinkError::Tls(RecordError::Unexpected(_))), "{error:?}");
}

#[test]
fn dropping_a_writer_says_goodbye_even_after_a_stop() {
    let (near, far) = channels();
    let stop = flag();
    let (_reader, mut writer) = near.into_link(Arc::clone(&stop)).unwrap();
    let (mut reader, _writer) = far.into_link(flag()).unwrap();
    writer.write_all(b"abc").unwrap();
    stop.store(true, Ordering::Relaxed);
    drop(writer);
    reader.read_exact(&mut [0; 3]).unwrap();
    assert!(matches!(reader.read_some(&mut [0; 1]), Err(LinkError::Closed)));
}

#[test]
fn a_write_that_failed_is_no_clean_end() {
    let (near, far) = channels();
    let (_reader, mut writer) = near.into_link(flag()).unwrap();
    writer.set_timeout(Some(Duration::from_millis(50)));
    let error = writer.write_all(&vec![0; 64 << 20]).unwrap_err();
    assert!(matches!(error, LinkError::TimedOut { .. }), "{error:?}");
    assert!(writer.write_all(b"x").is_err());
    drop((writer, _reader));
    let (mut reader, _writer) = far.into_link(flag()).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let error = loop {
        match reader.read_some(&mut buffer) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LinkError::Truncated), "{error:?}");
}

#[test]
fn timeouts_and_throttles_work_as_in_clear() {
    let [(mut near_reader, _near_writer), (mut far_reader, mut far_writer)] = links();
    near_reader.set_timeout(Some(Duration::from_millis(50)));
    assert!(matches!(near_reader.read_exact(&mut [0; 1]), Err(LinkError::TimedOut { seconds: 1 })));
    let stop = flag();
    far_reader.set_stop(Arc::clone(&stop));
    stop.store(true, Ordering::Relaxed);
    assert!(matches!(far_reader.read_exact(&mut [0; 1]), Err(LinkError::Stopped)));
    near_reader.set_timeout(None);
    far_writer.set_throttle(Arc::new(Throttle::new(Some(1 << 20))));
    let (header, payload) = (pattern(10_005), pattern(200_001));
    thread::scope(|scope| {
        scope.spawn(|| far_writer.write_vectored(&header, &payload).unwrap());
        let mut got = vec![0; header.len() + payload.len()];
        near_reader.read_exact(&mut got).unwrap();
        assert!(got == [&header[..], &payload[..]].concat());
    });
}

/// System calls of this thread so far: reads and writes.
fn calls() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    (value("syscr:"), value("syscw:"))
}

#[test]
fn a_frame_costs_few_system_calls() {
    const FRAMES: u64 = 32;
    let [(_near_reader, mut near_writer), (mut far_reader, _far_writer)] = links();
    let (header, payload) = (pattern(9), pattern(limits::FRAME_BYTES_MAX));
    let (writes, reads) = thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let before = calls();
            for _ in 0..FRAMES {
                near_writer.write_vectored(&header, &payload).unwrap();
            }
            calls().1 - before.1
        });
        let reading = scope.spawn(|| {
            let mut got = vec![0; header.len() + payload.len()];
            let before = calls();
            for _ in 0..FRAMES {
                far_reader.read_exact(&mut got).unwrap();
            }
            calls().0 - before.0
        });
        (writing.join().unwrap(), reading.join().unwrap())
    });
    // 65 records a frame: one call each would be 2080. How often a full socket is tried again is up to the kernel.
    assert!((FRAMES..=FRAMES * 24).contains(&writes), "{writes} writes");
    assert!(reads <= FRAMES * 24, "{reads} reads");
}
