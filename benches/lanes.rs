//! Throughput of one lane over loopback: frames of 1 MiB, in clear and over TLS, in bytes of payload.
#![allow(clippy::disallowed_methods, reason = "benches stand outside the rooms")]

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::BytesCount;
use xfer::limits;
use xfer::net::{
    Identity, LaneListener, LinkReader, LinkWriter, PeerKey, TlsChannel, connect_tcp, tls_accept, tls_connect,
};

const FRAMES: usize = 256;
const HEADER: [u8; 9] = [0; 9];

fn main() {
    divan::main();
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn sockets() -> (TcpStream, TcpStream) {
    let stop = AtomicBool::new(false);
    let listener = LaneListener::bind(None, Some([127, 0, 0, 1].into())).expect("listens");
    let near = connect_tcp("127.0.0.1", listener.port(), b"", soon(), &stop).expect("connects");
    (near, listener.accept(soon(), &stop).expect("accepts").0)
}

fn channels() -> (TlsChannel, TlsChannel) {
    let (near, far) = sockets();
    let identity = Identity::generate().expect("makes a key");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let far = scope.spawn(|| tls_accept(far, &identity, PeerKey::Any, soon(), &stop).expect("accepts"));
        let near = tls_connect(near, &identity, PeerKey::Any, soon(), &stop).expect("connects");
        (near, far.join().expect("ends"))
    })
}

fn carry(bencher: Bencher, mut writer: LinkWriter, mut reader: LinkReader) {
    let payload = vec![7; limits::FRAME_BYTES_MAX];
    let mut got = vec![0; HEADER.len() + payload.len()];
    bencher.counter(BytesCount::new(FRAMES * payload.len())).bench_local(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..FRAMES {
                    writer.write_vectored(&HEADER, &payload).expect("writes");
                }
            });
            for _ in 0..FRAMES {
                reader.read_exact(&mut got).expect("reads");
            }
        });
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn clear(bencher: Bencher) {
    let (near, far) = sockets();
    let reader = LinkReader::new(far, Arc::default()).expect("reader");
    carry(bencher, LinkWriter::new(near, Arc::default()).expect("writer"), reader);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn tls(bencher: Bencher) {
    let (near, far) = channels();
    let (_near_reader, writer) = near.into_link(Arc::default()).expect("link");
    let (reader, _far_writer) = far.into_link(Arc::default()).expect("link");
    carry(bencher, writer, reader);
}

#[divan::bench(sample_count = 20, sample_size = 5)]
fn handshake() -> (TlsChannel, TlsChannel) {
    channels()
}
