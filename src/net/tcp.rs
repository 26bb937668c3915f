//! TCP connections and listeners. Everything is close-on-exec: no child inherits a lane.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::wait::{WaitError, wait_until};
use crate::limits;
use crate::model::display_bytes;

/// Why there is no connection. Each message names host and port.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// The name could not be resolved.
    #[error("cannot find the address of {host}")]
    Resolve {
        /// As given, escaped.
        host: String,
        /// The resolver's error.
        #[source]
        source: io::Error,
    },
    /// The resolver knows no address.
    #[error("{host} has no address")]
    NoAddress {
        /// As given, escaped.
        host: String,
    },
    /// No address could be connected to; the last one's reason.
    #[error("cannot connect to {host} port {port}: {reason}")]
    Connect {
        /// As given, escaped.
        host: String,
        /// TCP port.
        port: u16,
        /// In words.
        reason: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The deadline passed.
    #[error("{what} did not come about in time")]
    TimedOut {
        /// What was waited for.
        what: String,
    },
    /// The stop flag was raised.
    #[error("stopped")]
    Stopped,
    /// No port to listen on.
    #[error("cannot listen on {what}")]
    Listen {
        /// Address and port, or the range.
        what: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A listener that cannot accept.
    #[error("cannot accept a connection")]
    Accept(#[source] io::Error),
}

/// Connects to the first address of `host` (a name, or an address without brackets) that answers, and sends `first`.
/// No address uses up more than its share of the time that is left. Name resolution counts against the deadline too.
pub fn connect_tcp(
    host: &str,
    port: u16,
    first: &[u8],
    deadline: Instant,
    stop: &AtomicBool,
) -> Result<TcpStream, TcpError> {
    let what = || format!("a connection to {} port {port}", display_bytes(host.as_bytes()));
    let ended = |error: WaitError| match error {
        WaitError::TimedOut => TcpError::TimedOut { what: what() },
        WaitError::Stopped => TcpError::Stopped,
        WaitError::Io(source) => connect_error(host, port, source),
    };
    let addresses = resolve(host, port, deadline, stop)?;
    let mut failed = None;
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let until = Instant::now() + share;
        match connect_one(*address, until, stop).and_then(|stream| {
            send_first(&stream, first, deadline, stop)?;
            Ok(stream)
        }) {
            Ok(stream) => return Ok(stream),
            Err(WaitError::Stopped) => return Err(TcpError::Stopped),
            // A refusal says more than silence.
            Err(WaitError::TimedOut) => failed = failed.or(Some(WaitError::TimedOut)),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.map_or_else(|| TcpError::NoAddress { host: display_bytes(host.as_bytes()) }, ended))
}

/// The resolver of the system cannot be interrupted: it runs on a thread of its own, left behind if it takes too long.
fn resolve(host: &str, port: u16, deadline: Instant, stop: &AtomicBool) -> Result<Vec<SocketAddr>, TcpError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let shown = display_bytes(host.as_bytes());
    let (sender, receiver) = mpsc::channel();
    let name = host.to_owned();
    let resolving = std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // Nobody waits any more.
        let _ = sender.send(found);
    });
    if let Err(source) = resolving {
        return Err(TcpError::Resolve { host: shown, source });
    }
    loop {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(TcpError::Stopped);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TcpError::TimedOut { what: format!("the address of {shown}") });
        }
        match receiver.recv_timeout(left.min(Duration::from_millis(limits::STOP_POLL_MS))) {
            Ok(Ok(mut found)) => {
                found.truncate(limits::TCP_ADDRESSES_MAX);
                return if found.is_empty() { Err(TcpError::NoAddress { host: shown }) } else { Ok(found) };
            }
            Ok(Err(source)) => return Err(TcpError::Resolve { host: shown, source }),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(TcpError::Resolve { host: shown, source: io::Error::other("the resolver failed") });
            }
        }
    }
}

fn connect_one(address: SocketAddr, until: Instant, stop: &AtomicBool) -> Result<TcpStream, WaitError> {
    let system = |error: Errno| WaitError::Io(error.into());
    let socket = stream_socket(&address).map_err(system)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            wait_until(&socket, PollFlags::OUT, until, stop)?;
            sockopt::socket_error(&socket).map_err(system)?.map_err(system)?;
        }
        Err(error) => return Err(system(error)),
    }
    Ok(TcpStream::from(socket))
}

/// A non-blocking, close-on-exec TCP socket of the address's family.
fn stream_socket(address: &SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}

fn send_first(stream: &TcpStream, first: &[u8], deadline: Instant, stop: &AtomicBool) -> Result<(), WaitError> {
    let mut sent = 0;
    while sent < first.len() {
        match rustix::io::write(stream, &first[sent..]) {
            Ok(bytes) => sent += bytes,
            Err(Errno::AGAIN) => wait_until(stream, PollFlags::OUT, deadline, stop)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(WaitError::Io(error.into())),
        }
    }
    Ok(())
}

/// Fills `first` with what a connection begins with, before anything else reads from it.
pub fn read_first(stream: &TcpStream, first: &mut [u8], deadline: Instant, stop: &AtomicBool) -> Result<(), TcpError> {
    let mut filled = 0;
    while filled < first.len() {
        match rustix::io::read(stream, &mut first[filled..]) {
            Ok(0) => return Err(TcpError::Accept(io::ErrorKind::UnexpectedEof.into())),
            Ok(bytes) => filled += bytes,
            Err(Errno::AGAIN) => wait_until(stream, PollFlags::IN, deadline, stop).map_err(|error| match error {
                WaitError::TimedOut => TcpError::TimedOut { what: "the first bytes of a connection".to_owned() },
                WaitError::Stopped => TcpError::Stopped,
                WaitError::Io(source) => TcpError::Accept(source),
            })?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(TcpError::Accept(error.into())),
        }
        // A peer that sends a byte now and then never makes us wait.
        if Instant::now() >= deadline && filled < first.len() {
            return Err(TcpError::TimedOut { what: "the first bytes of a connection".to_owned() });
        }
    }
    Ok(())
}

fn connect_error(host: &str, port: u16, source: io::Error) -> TcpError {
    let reason = match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::CONNREFUSED) => "nothing listens there, or a firewall refused it".to_owned(),
        Some(Errno::HOSTUNREACH | Errno::NETUNREACH) => "there is no way to that host".to_owned(),
        Some(Errno::TIMEDOUT) => "no answer".to_owned(),
        Some(Errno::ACCESS | Errno::PERM) => "a firewall of this host forbids it".to_owned(),
        _ => "the system refused it".to_owned(),
    };
    TcpError::Connect { host: display_bytes(host.as_bytes()), port, reason, source }
}

/// Lets the kernel end a connection when its other end has not been heard of for `timeout`, whether data is waiting to
/// be acknowledged (`TCP_USER_TIMEOUT`) or the connection is idle (keep-alive probes, spread over the same time).
/// `None`: the kernel's own patience of many minutes.
pub fn set_path_timeout(stream: impl AsFd, timeout: Option<Duration>) -> io::Result<()> {
    let stream = stream.as_fd();
    let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) else {
        sockopt::set_tcp_user_timeout(stream, 0)?;
        return Ok(sockopt::set_socket_keepalive(stream, false)?);
    };
    // The kernel counts in seconds and wants at least one: half of the time idle, the other half in probes.
    let step_s = (timeout.as_secs() / 6).clamp(1, 3600);
    let idle_s = (timeout.as_secs() / 2).clamp(1, 32_767);
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(idle_s))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(step_s))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    sockopt::set_socket_keepalive(stream, true)?;
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).min(i32::MAX as u32);
    Ok(sockopt::set_tcp_user_timeout(stream, timeout_ms)?)
}

/// A listening socket for the lanes of one session, or of a daemon.
#[derive(Debug)]
pub struct LaneListener {
    socket: TcpListener,
    address: SocketAddr,
}

impl LaneListener {
    /// Listens on `address`, or on all of both IP versions (only on IPv4 where the host has no IPv6), on any free
    /// port, or on the first free one of `ports`.
    pub fn bind(ports: Option<RangeInclusive<u16>>, address: Option<IpAddr>) -> Result<LaneListener, TcpError> {
        let what = match (&ports, address) {
            (None, None) => "any port".to_owned(),
            (None, Some(address)) => format!("any port of {address}"),
            (Some(ports), None) => format!("any of the ports {} to {}", ports.start(), ports.end()),
            (Some(ports), Some(address)) => {
                format!("any of the ports {} to {} of {address}", ports.start(), ports.end())
            }
        };
        let mut failed = Errno::ADDRINUSE;
        for port in ports.unwrap_or(0..=0) {
            let addresses = match address {
                Some(address) => vec![address],
                None => vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
            };
            for address in addresses {
                match LaneListener::bind_one(SocketAddr::new(address, port)) {
                    Ok(listener) => return Ok(listener),
                    // A port that is taken for both versions is not taken for one of them alone.
                    Err(Errno::ADDRINUSE) => {
                        failed = Errno::ADDRINUSE;
                        break;
                    }
                    Err(error) => failed = error,
                }
            }
        }
        Err(TcpError::Listen { what, source: failed.into() })
    }

    fn bind_one(address: SocketAddr) -> Result<LaneListener, Errno> {
        let socket = stream_socket(&address)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
        }
        // A port of a range is to be had again at once after the run before.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, limits::TCP_BACKLOG)?;
        let socket = TcpListener::from(socket);
        let address = socket.local_addr().map_err(|_| Errno::INVAL)?;
        Ok(LaneListener { socket, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The socket, to wait on or to hand on.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next connection, in non-blocking mode, and where it comes from (an IPv4 address as such). Connections that
    /// ended before they were taken are passed over.
    pub fn accept(&self, deadline: Instant, stop: &AtomicBool) -> Result<(TcpStream, SocketAddr), TcpError> {
        loop {
            // Looked at before every take: a flood of connections would hide the deadline.
            if stop.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(TcpError::Stopped);
            }
            if Instant::now() >= deadline {
                return Err(TcpError::TimedOut { what: "a connection".to_owned() });
            }
            match self.socket.accept() {
                Ok((stream, from)) => {
                    stream.set_nonblocking(true).map_err(TcpError::Accept)?;
                    return Ok((stream, SocketAddr::new(from.ip().to_canonical(), from.port())));
                }
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::AGAIN) => match wait_until(&self.socket, PollFlags::IN, deadline, stop) {
                        Ok(()) => {}
                        Err(WaitError::TimedOut) => return Err(TcpError::TimedOut { what: "a connection".to_owned() }),
                        Err(WaitError::Stopped) => return Err(TcpError::Stopped),
                        Err(WaitError::Io(source)) => return Err(TcpError::Accept(source)),
                    },
                    Some(
                        Errno::INTR | Errno::CONNABORTED | Errno::NETDOWN | Errno::HOSTUNREACH | Errno::NETUNREACH,
                    ) => {}
                    _ => return Err(TcpError::Accept(error)),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    static GO_ON: AtomicBool = AtomicBool::new(false);
    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn both_ip_versions_are_listened_to_and_the_first_bytes_arrive() {
        let listener = LaneListener::bind(None, None).unwrap();
        for host in ["127.0.0.1", "::1", "localhost"] {
            if host == "::1" && listener.address().is_ipv4() {
                // This host has no IPv6.
                continue;
            }
            let _client = connect_tcp(host, listener.port(), b"first", soon(), &GO_ON).unwrap();
            let (mut server, from) = listener.accept(soon(), &GO_ON).unwrap();
            assert!(from.ip().is_loopback(), "{from}");
            server.set_nonblocking(false).unwrap();
            let mut got = [0; 5];
            server.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"first");
        }
    }

    #[test]
    fn no_child_inherits_a_socket() {
        let listener = LaneListener::bind(None, Some(LOOPBACK)).unwrap();
        let client = connect_tcp("127.0.0.1", listener.port(), b"", soon(), &GO_ON).unwrap();
        let (server, _) = listener.accept(soon(), &GO_ON).unwrap();
        for fd in [client.as_fd(), server.as_fd(), listener.as_fd()] {
            assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn a_range_yields_its_first_free_port_and_says_when_there_is_none() {
        let first = LaneListener::bind(None, Some(LOOPBACK)).unwrap();
        let port = first.port();
        let error = LaneListener::bind(Some(port..=port), Some(LOOPBACK)).unwrap_err();
        assert!(error.to_string().contains(&format!("ports {port} to {port} of 127.0.0.1")), "{error}");
        if let Some(last) = port.checked_add(20) {
            let next = LaneListener::bind(Some(port..=last), Some(LOOPBACK)).unwrap();
            assert!(next.port() > port && next.port() <= last);
        }
    }

    #[test]
    fn failures_name_host_port_and_reason() {
        let port = LaneListener::bind(None, Some(LOOPBACK)).unwrap().port();
        let error = connect_tcp("127.0.0.1", port, b"", soon(), &GO_ON).unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1 port {port}")) && error.contains("nothing listens"), "{error}");
        let error = connect_tcp("no such\u{1b} host", 1, b"", soon(), &GO_ON).unwrap_err().to_string();
        assert!(error.contains("no such") && !error.contains('\u{1b}'), "{error}");
        let stopped = AtomicBool::new(true);
        assert!(matches!(connect_tcp("localhost", port, b"", soon(), &stopped), Err(TcpError::Stopped)));
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let listener = LaneListener::bind(None, Some(LOOPBACK)).unwrap();
        let short = || Instant::now() + Duration::from_millis(100);
        assert!(matches!(listener.accept(short(), &GO_ON), Err(TcpError::TimedOut { .. })));
        assert!(matches!(listener.accept(soon(), &AtomicBool::new(true)), Err(TcpError::Stopped)));
        // A listener whose queue is full answers no more: as a firewall that drops.
        rustix::net::listen(&listener.socket, 0).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match connect_tcp("127.0.0.1", listener.port(), b"", short(), &GO_ON) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 100);
        };
        assert!(matches!(error, TcpError::TimedOut { .. }), "{error:?}");
    }

    #[test]
    fn the_kernel_is_told_how_patient_to_be() {
        let listener = LaneListener::bind(None, Some(LOOPBACK)).unwrap();
        let client = connect_tcp("127.0.0.1", listener.port(), b"", soon(), &GO_ON).unwrap();
        set_path_timeout(&client, Some(Duration::from_secs(30))).unwrap();
        assert!(sockopt::socket_keepalive(&client).unwrap());
        assert_eq!(sockopt::tcp_user_timeout(&client).unwrap(), 30_000);
        assert_eq!(sockopt::tcp_keepidle(&client).unwrap(), Duration::from_secs(15));
        for odd in [Duration::from_millis(1), Duration::from_secs(1), Duration::from_secs(u64::from(u32::MAX))] {
            set_path_timeout(&client, Some(odd)).unwrap();
        }
        set_path_timeout(&client, None).unwrap();
        assert!(!sockopt::socket_keepalive(&client).unwrap());
    }
}
