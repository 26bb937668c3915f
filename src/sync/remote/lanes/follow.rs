//! The far end's part: it does what the client asks for, and nothing unasked.

use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::open::Opening;
use super::{Keeper, Lane, Pass, lanes_max};
use crate::limits;
use crate::net::{Identity, LaneListener, PublicKey, ssh_ends};
use crate::sync::clock;
use crate::wire::{LaneWord, SessionId, Transport};

/// Where a daemon's worker gets further connections of its session from.
pub(in crate::sync) trait LaneSource: Send + Sync {
    /// The id by which connections find this session.
    fn session(&self) -> SessionId;
    /// The next connection, its preamble read; `None` when none came until `deadline`, or none will.
    fn next(&self, deadline: Instant) -> Option<TcpStream>;
}

/// How lanes reach this end.
pub(in crate::sync) enum Door {
    /// Through a socket of its own, or by connecting.
    Own,
    /// Through the daemon's port.
    Daemon {
        /// Where they come from.
        source: Box<dyn LaneSource>,
        /// Who the client has proven to be.
        client_key: PublicKey,
    },
}

/// The far end's plan.
pub(in crate::sync) struct Follow {
    pub(in crate::sync) identity: Arc<Identity>,
    pub(in crate::sync) transport: Transport,
    pub(in crate::sync) door: Door,
    pub(in crate::sync) timeout: Option<Duration>,
}

impl Follow {
    pub(super) fn run(&self, keeper: &Keeper<'_>, on_lane: &(dyn Fn(Lane) + Sync)) {
        // Two attempts at most, one in each direction; the words of a client that wants more are not taken.
        let mut attempts = 0;
        let mut next = None;
        while attempts < 2 {
            let word = next.take().or_else(|| keeper.hear(Duration::MAX));
            attempts += u32::from(!matches!(word, Some(LaneWord::Close)));
            match word {
                Some(LaneWord::Listen { peer_key, token, session, ports, lanes }) => {
                    let identity = Arc::clone(&self.identity);
                    let lanes = Some(lanes_max(Some(lanes)));
                    let pass = Pass { identity, peer_key: PublicKey(peer_key), token, session, lanes };
                    let (opened, word) = self.listen(keeper, pass, ports, on_lane);
                    if opened > 0 {
                        return;
                    }
                    next = word;
                }
                Some(LaneWord::Connect { peer_key, token, session, port, addresses, to_client, lanes, limit_ms }) => {
                    if matches!(self.door, Door::Daemon { .. }) {
                        return keeper.say(LaneWord::Failed { reason: "a daemon does not connect".to_owned() });
                    }
                    let identity = Arc::clone(&self.identity);
                    let pass = Pass { identity, peer_key: PublicKey(peer_key), token, session, lanes };
                    let mut hosts: Vec<String> = addresses;
                    hosts.truncate(limits::LANE_ADDRESSES_MAX);
                    if let Some(ends) = ssh_ends().filter(|_| to_client) {
                        hosts.insert(0, ends.client);
                    }
                    let limit = limits::ms(u64::from(limit_ms).min(limits::AUTHENTICATION_TIMEOUT_MS));
                    match self.opening(keeper, &pass, on_lane).connect(&hosts, port, limit) {
                        Ok(lanes) => return keeper.say(LaneWord::Opened { lanes: lanes as u8 }),
                        Err(reason) => keeper.say(LaneWord::Failed { reason }),
                    }
                }
                Some(LaneWord::Close) => {}
                _ => return,
            }
        }
    }

    fn opening<'a>(&self, keeper: &'a Keeper<'_>, pass: &'a Pass, on_lane: &'a (dyn Fn(Lane) + Sync)) -> Opening<'a> {
        Opening { pass, over: &keeper.over, cut: &keeper.cut, timeout: self.timeout, on_lane }
    }

    fn listen(
        &self,
        keeper: &Keeper<'_>,
        mut pass: Pass,
        ports: Option<(u16, u16)>,
        on_lane: &(dyn Fn(Lane) + Sync),
    ) -> (usize, Option<LaneWord>) {
        let deadline = clock::after(limits::ms(limits::LANE_LISTEN_TIMEOUT_MS));
        // Whatever the client says next, it is done with this attempt.
        let word = Mutex::new(None);
        let is_closed = || {
            let mut word = word.lock().unwrap_or_else(PoisonError::into_inner);
            if word.is_none() {
                *word = keeper.words.try_recv().ok();
            }
            word.is_some() || keeper.is_over()
        };
        let key = pass.identity.public_key().0;
        let opened = match &self.door {
            Door::Own => {
                let ports = ports.map(|(first, last)| first..=last);
                match LaneListener::bind(ports, None) {
                    Ok(listener) => {
                        let addresses = ssh_ends().map(|ends| ends.server).into_iter().collect();
                        let session = pass.session;
                        keeper.say(LaneWord::Listening { key, session, port: listener.port(), addresses });
                        self.opening(keeper, &pass, on_lane).listen(&listener, deadline, &is_closed)
                    }
                    Err(error) => {
                        keeper.say(LaneWord::Failed { reason: super::open::in_words(&error) });
                        0
                    }
                }
            }
            Door::Daemon { source, client_key } => {
                // Who may use the session is known already: the peer's word for it counts for nothing.
                pass.peer_key = *client_key;
                pass.session = source.session();
                keeper.say(LaneWord::Listening { key, session: pass.session, port: 0, addresses: Vec::new() });
                let next = |deadline| Ok(source.next(deadline));
                self.opening(keeper, &pass, on_lane).take(&next, false, deadline, &is_closed)
            }
        };
        (opened, word.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
