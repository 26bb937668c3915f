//! Reaching a daemon: TCP, TLS, and whether its key is the one known for that host.

use std::sync::Arc;
use std::time::Duration;

use super::lanes::in_words;
use crate::limits;
use crate::net::{Identity, LinkReader, LinkWriter, PeerKey, PublicKey, connect_tcp, tls_connect};
use crate::sync::{Connect, StopFlag, SyncError, clock};
use crate::wire::{Greeting, Preamble, agree};

/// A daemon that has proven who it is.
pub(super) struct ReachedDaemon {
    pub(super) reader: LinkReader,
    pub(super) writer: LinkWriter,
    pub(super) identity: Arc<Identity>,
    pub(super) host_key: PublicKey,
}

/// Connects, and says nothing before the daemon's key is trusted.
pub(super) fn reach(
    stop: &StopFlag,
    host: &str,
    port: u16,
    how: &Connect,
    timeout: Option<Duration>,
) -> Result<ReachedDaemon, SyncError> {
    let failed = |reason: String| match stop.requested() {
        true => SyncError::Stopped,
        false => SyncError::Daemon { host: host.to_owned(), port, reason },
    };
    let keys = how.keys.as_ref().ok_or_else(|| failed("no keys were given".to_owned()))?;
    let identity = keys.identity().map_err(failed)?;
    let deadline = clock::after(timeout.unwrap_or(limits::ms(limits::AUTHENTICATION_TIMEOUT_MS)));
    let stop = stop.as_atomic();
    let preamble = Preamble { session: None }.encode();
    let stream = connect_tcp(host, port, &preamble, deadline, stop).map_err(|error| failed(in_words(&error)))?;
    let channel =
        tls_connect(stream, &identity, PeerKey::Any, deadline, stop).map_err(|error| failed(in_words(&error)))?;
    let host_key = channel.peer_key();
    keys.trust(host, port, &host_key).map_err(failed)?;
    channel.set_path_timeout(timeout).map_err(SyncError::Setup)?;
    let (reader, writer) = channel.into_link(Arc::clone(stop)).map_err(SyncError::Setup)?;
    Ok(ReachedDaemon { reader, writer, identity, host_key })
}

/// Both sides greet.
pub(super) fn greet(reader: &mut LinkReader, writer: &mut LinkWriter) -> Result<(), SyncError> {
    let ours = Greeting::ours();
    writer.write_all(&ours.encode()).map_err(SyncError::from_link)?;
    let theirs = Greeting::read_whole(|buffer| reader.read_exact(buffer)).map_err(SyncError::from_link)??;
    agree(&ours, &theirs)?;
    Ok(())
}
