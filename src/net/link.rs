//! A byte link over two descriptors: the pipes of a remote shell, our own standard input and output, or a socket with
//! TLS. Waiting is by `poll`, so that a dead peer and a raised stop flag are both noticed.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Throttle;
use super::tls::RecordError;
use super::tls::records::{Opened, Opener, Sealer, unsent};
use crate::limits;

/// Why bytes could not be moved. Whatever was moved before is lost with the link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other end closed the link. Over TLS it said so itself.
    #[error("the connection was closed by the other end")]
    Closed,
    /// An encrypted link ended without the other end saying so: it died, or somebody cut the line.
    #[error("the connection was cut: it ended without a word from the other end")]
    Truncated,
    /// An encrypted link can no longer be trusted, or the other end gave up.
    #[error("the encrypted connection failed")]
    Tls(#[source] RecordError),
    /// Not one byte moved within the time-out.
    #[error("no data passed within {seconds} seconds")]
    TimedOut {
        /// The time-out, rounded up.
        seconds: u64,
    },
    /// The stop flag was raised while waiting.
    #[error("stopped")]
    Stopped,
    /// Any other system error.
    #[error("cannot {operation} the connection")]
    Io {
        /// `read from` or `write to`.
        operation: &'static str,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
}

/// What reader and writer have in common: a descriptor in non-blocking mode and how long to wait for it.
#[derive(Debug)]
struct End {
    fd: OwnedFd,
    /// Flags to put back: the mode belongs to the open file, which our standard streams share with other processes.
    flags_before: Option<OFlags>,
    timeout: Option<Duration>,
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
}

impl End {
    fn new(fd: OwnedFd, stop: Arc<AtomicBool>) -> std::io::Result<End> {
        // Fails on what is not a pipe, and where the user's pipes are at their limit: slower, no more.
        let _ = rustix::pipe::fcntl_setpipe_size(&fd, limits::PIPE_BUFFER_BYTES);
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        let flags_before = if flags.contains(OFlags::NONBLOCK) {
            None
        } else {
            rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
            Some(flags)
        };
        Ok(End { fd, flags_before, timeout: None, stop, bytes: Arc::default() })
    }

    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits until the descriptor may be tried again; `since` is when bytes last moved.
    fn wait(&self, flags: PollFlags, since: Instant, operation: &'static str) -> Result<(), LinkError> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(LinkError::Stopped);
            }
            let mut wait = Duration::from_millis(limits::STOP_POLL_MS);
            if let Some(timeout) = self.timeout {
                let left = timeout.saturating_sub(since.elapsed());
                if left.is_zero() {
                    return Err(LinkError::TimedOut { seconds: timeout.as_millis().div_ceil(1000) as u64 });
                }
                wait = wait.min(left);
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
            match poll(&mut [PollFd::new(&self.fd, flags)], Some(&wait)) {
                // An error or a hang-up is told by the read or write that follows.
                Ok(ready) if ready > 0 => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(io_error(operation, error)),
            }
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(flags) = self.flags_before {
            let _ = rustix::fs::fcntl_setfl(&self.fd, flags);
        }
    }
}

fn io_error(operation: &'static str, error: Errno) -> LinkError {
    match error {
        Errno::PIPE | Errno::CONNRESET => LinkError::Closed,
        error => LinkError::Io { operation, source: error.into() },
    }
}

/// The receiving end of a link.
#[derive(Debug)]
pub struct LinkReader {
    end: End,
    /// In clear: read ahead. Empty over TLS, whose record layer has a buffer of its own.
    ahead: Box<[u8]>,
    ahead_start: usize,
    ahead_end: usize,
    opener: Option<Box<Opener>>,
}

const READ: &str = "read from";
const WRITE: &str = "write to";

impl LinkReader {
    /// Takes a descriptor and makes it non-blocking (undone when dropped). `stop` ends every wait, and is looked at
    /// only then: what can be moved at once is moved.
    pub fn new(fd: impl Into<OwnedFd>, stop: Arc<AtomicBool>) -> std::io::Result<LinkReader> {
        let ahead = vec![0; limits::LINK_READ_AHEAD_BYTES].into_boxed_slice();
        Ok(LinkReader { end: End::new(fd.into(), stop)?, ahead, ahead_start: 0, ahead_end: 0, opener: None })
    }

    /// Takes one hold on a socket whose handshake is over.
    pub(super) fn over_tls(
        fd: impl Into<OwnedFd>,
        opener: Opener,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<LinkReader> {
        let (ahead, opener) = (Box::default(), Some(Box::new(opener)));
        Ok(LinkReader { end: End::new(fd.into(), stop)?, ahead, ahead_start: 0, ahead_end: 0, opener })
    }

    /// Our own standard input.
    pub fn stdin(stop: Arc<AtomicBool>) -> std::io::Result<LinkReader> {
        LinkReader::new(std::io::stdin().as_fd().try_clone_to_owned()?, stop)
    }

    /// Longest time without a single byte; `None`: any.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.end.timeout = timeout;
    }

    /// Another stop flag from now on: an orderly end goes on talking after the flag of the work was raised.
    pub fn set_stop(&mut self, stop: Arc<AtomicBool>) {
        self.end.stop = stop;
    }

    /// Bytes taken from the descriptor so far, those read ahead included. The counter may be watched from any thread.
    pub fn byte_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.end.bytes)
    }

    /// The descriptor, to wait on; bytes that were read ahead do not show there.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.fd.as_fd()
    }

    /// Fills `buffer`. A link that ends before its first byte or in its middle is `Closed` alike: where an end is
    /// allowed is a matter of the messages.
    pub fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        let mut filled = 0;
        while filled < buffer.len() {
            filled += self.read_some(&mut buffer[filled..])?;
        }
        Ok(())
    }

    /// Waits for bytes and takes what is there: 1 to `buffer.len()` of them, 0 only for an empty buffer.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Some(opener) = &mut self.opener {
            return receive_tls(&self.end, opener, buffer);
        }
        if self.ahead_start == self.ahead_end {
            if buffer.len() >= self.ahead.len() {
                return receive(&self.end, buffer);
            }
            self.ahead_end = 0;
            self.ahead_start = 0;
            self.ahead_end = receive(&self.end, &mut self.ahead)?;
        }
        let available = &self.ahead[self.ahead_start..self.ahead_end];
        let taken = available.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&available[..taken]);
        self.ahead_start += taken;
        Ok(taken)
    }
}

/// Plaintext of one record at most.
fn receive_tls(end: &End, opener: &mut Opener, buffer: &mut [u8]) -> Result<usize, LinkError> {
    loop {
        match opener.open(buffer).map_err(LinkError::Tls)? {
            Opened::Bytes(bytes) => return Ok(bytes),
            Opened::Closed => return Err(LinkError::Closed),
            Opened::NeedsMore => match receive(end, opener.space()) {
                Ok(bytes) => opener.filled(bytes),
                // Nothing but the peer's own word, under its key, is a clean end.
                Err(LinkError::Closed) => return Err(LinkError::Truncated),
                Err(error) => return Err(error),
            },
        }
    }
}

/// One read that brought something.
fn receive(end: &End, buffer: &mut [u8]) -> Result<usize, LinkError> {
    let since = Instant::now();
    loop {
        match rustix::io::read(&end.fd, &mut *buffer) {
            Ok(0) => return Err(LinkError::Closed),
            Ok(bytes) => {
                end.count(bytes);
                return Ok(bytes);
            }
            Err(Errno::AGAIN) => end.wait(PollFlags::IN, since, READ)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(io_error(READ, error)),
        }
    }
}

/// The sending end of a link. Dropping it closes it, which is how the other end learns that no more will come.
#[derive(Debug)]
pub struct LinkWriter {
    end: End,
    throttle: Option<Arc<Throttle>>,
    tls: Option<Sealing>,
}

/// The sending half of TLS.
#[derive(Debug)]
struct Sealing {
    sealer: Box<Sealer>,
    /// Kept for its memory.
    records: Vec<Vec<u8>>,
    /// The goodbye was said, or cannot be said any more because a record went out in part.
    over: bool,
}

impl LinkWriter {
    /// Takes a descriptor and makes it non-blocking (undone when dropped). `stop` ends every wait, and is looked at
    /// only then: what can be moved at once is moved.
    pub fn new(fd: impl Into<OwnedFd>, stop: Arc<AtomicBool>) -> std::io::Result<LinkWriter> {
        Ok(LinkWriter { end: End::new(fd.into(), stop)?, throttle: None, tls: None })
    }

    /// Takes one hold on a socket whose handshake is over.
    pub(super) fn over_tls(
        fd: impl Into<OwnedFd>,
        sealer: Sealer,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<LinkWriter> {
        let tls = Sealing { sealer: Box::new(sealer), records: Vec::new(), over: false };
        Ok(LinkWriter { end: End::new(fd.into(), stop)?, throttle: None, tls: Some(tls) })
    }

    /// Our own standard output.
    pub fn to_stdout(stop: Arc<AtomicBool>) -> std::io::Result<LinkWriter> {
        LinkWriter::new(std::io::stdout().as_fd().try_clone_to_owned()?, stop)
    }

    /// Longest time in which the other end takes not a single byte; `None`: any. Time held back by the throttle does
    /// not count.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.end.timeout = timeout;
    }

    /// Another stop flag from now on; see [`LinkReader::set_stop`].
    pub fn set_stop(&mut self, stop: Arc<AtomicBool>) {
        self.end.stop = stop;
    }

    /// Every byte from now on passes this throttle.
    pub fn set_throttle(&mut self, throttle: Arc<Throttle>) {
        self.throttle = Some(throttle).filter(|throttle| !throttle.is_unlimited());
    }

    /// Bytes handed to the descriptor so far. The counter may be watched from any thread.
    pub fn byte_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.end.bytes)
    }

    /// Writes all of `bytes`.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.write_vectored(bytes, &[])
    }

    /// Says that no more will come and closes the sending side: over TLS in a way that nobody can forge, so that the
    /// other end can tell the end from a cut. Dropping does the same as far as the socket takes it soon.
    ///
    /// A socket that is dropped with unread data in it resets the connection, and the other end may then lose what it
    /// has not read: read to the end ([`LinkError::Closed`]) before dropping the reader.
    pub fn close(mut self) -> Result<(), LinkError> {
        self.say_goodbye()
    }

    fn say_goodbye(&mut self) -> Result<(), LinkError> {
        let Some(tls) = self.tls.as_mut().filter(|tls| !tls.over) else { return Ok(()) };
        tls.over = true;
        let record = tls.sealer.close_notify().map_err(LinkError::Tls)?;
        let mut sent = 0;
        while sent < record.len() {
            sent += transmit(&self.end, &record[sent..], &[])?;
        }
        rustix::net::shutdown(&self.end.fd, rustix::net::Shutdown::Write).map_err(|error| io_error(WRITE, error))
    }

    /// Writes a header and its payload, in one system call where the link takes it.
    pub fn write_vectored(&mut self, header: &[u8], payload: &[u8]) -> Result<(), LinkError> {
        let total = header.len() + payload.len();
        let mut piece_bytes = self.throttle.as_ref().map_or(usize::MAX, |throttle| throttle.piece_bytes());
        if self.tls.is_some() {
            piece_bytes = piece_bytes.min(limits::TLS_WRITE_BYTES);
        }
        let mut sent = 0;
        while sent < total {
            let piece_end = sent.saturating_add(piece_bytes).min(total);
            if let Some(throttle) = &self.throttle
                && !throttle.take(piece_end - sent, &self.end.stop)
            {
                return Err(LinkError::Stopped);
            }
            if let Some(tls) = &mut self.tls {
                transmit_tls(&self.end, tls, [header, payload], sent..piece_end)?;
                sent = piece_end;
            }
            while sent < piece_end {
                let head = &header[sent.min(header.len())..piece_end.min(header.len())];
                let tail = &payload[sent.saturating_sub(header.len())..piece_end.saturating_sub(header.len())];
                sent += transmit(&self.end, head, tail)?;
            }
        }
        Ok(())
    }
}

impl Drop for LinkWriter {
    fn drop(&mut self) {
        self.end.timeout = Some(Duration::from_millis(limits::TLS_GOODBYE_MS));
        // A stop that was raised is the most common reason to come here: it must not cut the goodbye short.
        self.end.stop = Arc::default();
        let _ = self.say_goodbye();
    }
}

/// Encrypts a piece and sends all of it.
fn transmit_tls(end: &End, tls: &mut Sealing, parts: [&[u8]; 2], range: Range<usize>) -> Result<(), LinkError> {
    // Whatever fails from here on leaves a record unsent or sent in part, and none can follow it.
    if std::mem::replace(&mut tls.over, true) {
        return Err(LinkError::Closed);
    }
    tls.records.clear();
    tls.sealer.seal(parts, range, &mut tls.records).map_err(LinkError::Tls)?;
    let total: usize = tls.records.iter().map(Vec::len).sum();
    let mut sent = 0;
    while sent < total {
        sent += transmit_slices(end, &unsent(&tls.records, sent))?;
    }
    tls.over = false;
    Ok(())
}

/// One gathering write that took something.
fn transmit_slices(end: &End, slices: &[IoSlice<'_>]) -> Result<usize, LinkError> {
    transmit_by(end, || rustix::io::writev(&end.fd, slices))
}

/// One write that took something.
fn transmit(end: &End, head: &[u8], tail: &[u8]) -> Result<usize, LinkError> {
    transmit_by(end, || match (head.is_empty(), tail.is_empty()) {
        (true, _) => rustix::io::write(&end.fd, tail),
        (false, true) => rustix::io::write(&end.fd, head),
        (false, false) => rustix::io::writev(&end.fd, &[IoSlice::new(head), IoSlice::new(tail)]),
    })
}

fn transmit_by(end: &End, write: impl Fn() -> rustix::io::Result<usize>) -> Result<usize, LinkError> {
    let since = Instant::now();
    loop {
        match write() {
            Ok(bytes) if bytes > 0 => {
                end.count(bytes);
                return Ok(bytes);
            }
            Ok(_) | Err(Errno::AGAIN) => end.wait(PollFlags::OUT, since, WRITE)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(io_error(WRITE, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn flag() -> Arc<AtomicBool> {
        Arc::new(AtomicBool::new(false))
    }

    fn over_pipe() -> (LinkReader, LinkWriter) {
        let (read, write) = std::io::pipe().unwrap();
        (LinkReader::new(read, flag()).unwrap(), LinkWriter::new(write, flag()).unwrap())
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * 31 % 251) as u8).collect()
    }

    #[test]
    fn frames_larger_than_any_buffer_pass_whole() {
        let (mut reader, mut writer) = over_pipe();
        let header = pattern(9);
        let payload = pattern(5 << 20);
        let (counted_in, counted_out) = (reader.byte_counter(), writer.byte_counter());
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3 {
                    writer.write_vectored(&header, &payload).unwrap();
                }
                writer.write_vectored(&[], &[]).unwrap();
            });
            for _ in 0..3 {
                let mut got = vec![0; header.len()];
                reader.read_exact(&mut got).unwrap();
                assert_eq!(got, header);
                let mut got = vec![0; payload.len()];
                reader.read_exact(&mut got).unwrap();
                assert!(got == payload);
            }
        });
        let total = 3 * (header.len() + payload.len()) as u64;
        assert_eq!(counted_in.load(Ordering::Relaxed), total);
        assert_eq!(counted_out.load(Ordering::Relaxed), total);
    }

    #[test]
    fn a_throttled_writer_loses_nothing_at_piece_borders() {
        let (mut reader, mut writer) = over_pipe();
        writer.set_throttle(Arc::new(Throttle::new(Some(100_000))));
        let (header, payload) = (pattern(10_005), pattern(25_001));
        let mut got = vec![0; header.len() + payload.len()];
        thread::scope(|scope| {
            scope.spawn(|| writer.write_vectored(&header, &payload).unwrap());
            reader.read_exact(&mut got).unwrap();
        });
        assert!(got == [header, payload].concat());
    }

    #[test]
    fn both_ends_notice_a_silent_peer() {
        let (mut reader, mut writer) = over_pipe();
        reader.set_timeout(Some(Duration::from_millis(50)));
        writer.set_timeout(Some(Duration::from_millis(50)));
        assert!(matches!(reader.read_exact(&mut [0; 1]), Err(LinkError::TimedOut { seconds: 1 })));
        assert!(matches!(writer.write_all(&vec![0; 8 << 20]), Err(LinkError::TimedOut { .. })));
    }

    #[test]
    fn slow_progress_is_no_time_out() {
        let (mut reader, mut writer) = over_pipe();
        reader.set_timeout(Some(Duration::from_millis(400)));
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..6 {
                    thread::sleep(Duration::from_millis(100));
                    writer.write_all(b"x").unwrap();
                }
            });
            reader.read_exact(&mut [0; 6]).unwrap();
        });
    }

    #[test]
    fn both_ends_notice_a_closed_peer() {
        let (mut reader, mut writer) = over_pipe();
        writer.write_all(b"abc").unwrap();
        drop(writer);
        assert!(matches!(reader.read_exact(&mut [0; 4]), Err(LinkError::Closed)));
        let (reader, mut writer) = over_pipe();
        drop(reader);
        assert!(matches!(writer.write_all(b"abc"), Err(LinkError::Closed)));
    }

    #[test]
    fn a_stop_ends_waits() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let stop = flag();
        let mut reader = LinkReader::new(ours.try_clone().unwrap(), Arc::clone(&stop)).unwrap();
        let mut writer = LinkWriter::new(ours, Arc::clone(&stop)).unwrap();
        thread::scope(|scope| {
            let reading = scope.spawn(|| reader.read_exact(&mut [0; 1]));
            let writing = scope.spawn(|| writer.write_all(&vec![0; 8 << 20]));
            thread::sleep(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
            assert!(matches!(reading.join().unwrap(), Err(LinkError::Stopped)));
            assert!(matches!(writing.join().unwrap(), Err(LinkError::Stopped)));
        });
    }

    #[test]
    fn the_descriptors_mode_is_put_back() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let reader = LinkReader::new(ours.try_clone().unwrap(), flag()).unwrap();
        assert!(rustix::fs::fcntl_getfl(&ours).unwrap().contains(OFlags::NONBLOCK));
        drop(reader);
        assert!(!rustix::fs::fcntl_getfl(&ours).unwrap().contains(OFlags::NONBLOCK));
    }
}
