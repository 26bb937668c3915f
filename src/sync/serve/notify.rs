//! Telling the service manager how it goes: datagrams to the socket that it named, in the form of `sd_notify(3)`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where a service manager listens, if one does.
#[derive(Debug, Default)]
pub(super) struct Notify(Option<OsString>);

impl Notify {
    /// The value of `NOTIFY_SOCKET`: a path, or a name of the abstract namespace after `@`.
    pub(super) fn new(socket: Option<OsString>) -> Notify {
        Notify(socket.filter(|socket| !socket.is_empty()))
    }

    /// Clients may come.
    pub(super) fn ready(&self) -> io::Result<()> {
        self.send("READY=1\n")
    }

    /// The configuration is being read again; [`Notify::ready`] ends that. The time lets the manager tell apart
    /// answers to two requests.
    pub(super) fn reloading(&self) -> io::Result<()> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\n"))
    }

    /// No new sessions.
    pub(super) fn stopping(&self, sessions: usize) -> io::Result<()> {
        self.send(&format!("STOPPING=1\nSTATUS={sessions} sessions still run\n"))
    }

    fn send(&self, state: &str) -> io::Result<()> {
        let Some(socket) = &self.0 else { return Ok(()) };
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(OsStr::from_bytes(socket.as_bytes()))?,
        };
        let datagram = UnixDatagram::unbound()?;
        datagram.set_nonblocking(true)?;
        datagram.send_to_addr(state.as_bytes(), &address).map(drop)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the test is the service manager")]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_of_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::new(Some(path.into_os_string()));
        notify.ready().unwrap();
        notify.reloading().unwrap();
        notify.stopping(3).unwrap();
        let hear = || {
            let mut buffer = [0; 200];
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert_eq!(hear(), "READY=1\n");
        assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert!(hear().starts_with("STOPPING=1\n"));
        assert!(Notify::new(Some("/nowhere/at/all".into())).ready().is_err());
        assert!(Notify::new(None).ready().is_ok());
        assert!(Notify::new(Some(OsString::new())).ready().is_ok());
    }
}
