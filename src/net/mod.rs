//! Getting bytes to and from another host: addresses, the remote shell, TCP, TLS and who is at its ends, byte links, the
//! throttle. Knows no message.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the edge to processes, sockets, key files and the clock of time-outs"
)]

mod address;
mod identity;
pub mod keys;
mod link;
mod shell;
mod ssh;
mod tcp;
mod throttle;
mod tls;
mod wait;

pub use address::{Address, AddressError, DAEMON_PORT_DEFAULT};
pub use identity::{Identity, KEY_TYPE, KeyParseError, PublicKey};
pub use link::{LinkError, LinkReader, LinkWriter};
pub use shell::{RemoteShell, ShellChild, ShellError, ShellLink, ssh_hostname};
pub use ssh::{SshEnds, ssh_ends};
pub use tcp::{LaneListener, TcpError, connect_tcp, read_first, set_path_timeout};
pub use throttle::Throttle;
pub use tls::{PeerKey, RecordError, TlsChannel, TlsError, tls_accept, tls_connect};
