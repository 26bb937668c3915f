//! Proof of what a line does: round trips and plain TCP streams.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};

/// Bytes written and read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Takes `probes` connections and closes them, then `streams` more, to their end; then says how many bytes came in how many seconds, and returns.
pub(crate) fn sink(address: SocketAddr, probes: usize, streams: usize) -> Result<(u64, f64)> {
    let listener = TcpListener::bind(address).context(|| format!("listen on {address}"))?;
    for _ in 0..probes {
        listener.accept().context(|| format!("accept on {address}"))?;
    }
    let mut takers = Vec::new();
    for _ in 0..streams {
        let (mut stream, _) = listener.accept().context(|| format!("accept on {address}"))?;
        takers.push(thread::spawn(move || -> std::io::Result<(u64, Instant, Instant)> {
            let (mut piece, mut bytes) = (vec![0; PIECE_BYTES], 0);
            let mut first = None;
            loop {
                let length = stream.read(&mut piece)?;
                let now = Instant::now();
                let first = *first.get_or_insert(now);
                if length == 0 {
                    stream.write_all(b"!")?;
                    return Ok((bytes, first, now));
                }
                bytes += length as u64;
            }
        }));
    }
    let (mut total, mut first, mut last) = (0, None::<Instant>, None::<Instant>);
    for taker in takers {
        let (bytes, from, to) = match taker.join() {
            Ok(taken) => taken.context(|| "read a stream".to_owned())?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        total += bytes;
        first = Some(first.map_or(from, |first| first.min(from)));
        last = Some(last.map_or(to, |last| last.max(to)));
    }
    let seconds = first.zip(last).map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    Ok((total, seconds))
}

/// Sends over `streams` connections for `seconds`, and waits until all has arrived.
pub(crate) fn send(address: SocketAddr, streams: usize, seconds: f64) -> Result<()> {
    let streams = (0..streams).map(|_| connect(address)).collect::<Result<Vec<_>>>()?;
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let senders: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            thread::spawn(move || -> std::io::Result<()> {
                let piece = vec![0x5a; PIECE_BYTES];
                while Instant::now() < until {
                    stream.write_all(&piece)?;
                }
                stream.shutdown(Shutdown::Write)?;
                stream.read_exact(&mut [0])
            })
        })
        .collect();
    for sender in senders {
        match sender.join() {
            Ok(sent) => sent.context(|| format!("send to {address}"))?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(())
}

/// Seconds that each of `times` TCP connections takes to be made: one round trip, sorted.
pub(crate) fn round_trips(address: SocketAddr, times: usize) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for _ in 0..times {
        let started = Instant::now();
        let _ = connect(address)?;
        took.push(started.elapsed().as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}

/// Connects; waits for up to ten seconds for somebody to listen.
fn connect(address: SocketAddr) -> Result<TcpStream> {
    let started = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(_) if started.elapsed() < Duration::from_secs(10) => thread::sleep(Duration::from_millis(50)),
            Err(source) => return Err(Error::Io { what: format!("connect to {address}"), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_of_all_streams_arrive() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let taker = thread::spawn(move || sink(free, 3, 2));
        assert_eq!(round_trips_when_up(free), 3);
        send(free, 2, 0.05).unwrap();
        let (bytes, seconds) = taker.join().unwrap().unwrap();
        assert!(bytes >= 2 * PIECE_BYTES as u64 && seconds > 0.0);
    }

    fn round_trips_when_up(address: SocketAddr) -> usize {
        round_trips(address, 3).unwrap().len()
    }
}
