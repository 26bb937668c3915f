//! The client's part: it asks one end to listen and the other to connect.

use std::sync::Arc;
use std::time::Duration;

use super::open::Opening;
use super::{Keeper, Lane, LaneWish, Pass, lanes_max};
use crate::limits;
use crate::net::{Identity, LaneListener, PublicKey};
use crate::sync::SyncError;
use crate::sync::clock;
use crate::wire::{LaneWord, SessionId, Transport};

/// Where the far end can be reached besides what it says itself. Asked for only when it is needed: it starts `ssh -G`.
pub(in crate::sync) type Hosts = Box<dyn Fn() -> Vec<String> + Send>;

/// The client's plan.
pub(in crate::sync) struct Lead {
    pub(in crate::sync) wish: LaneWish,
    pub(in crate::sync) identity: Arc<Identity>,
    pub(in crate::sync) far_key: PublicKey,
    pub(in crate::sync) hosts: Hosts,
    /// The far end is a daemon, at this port: it only listens.
    pub(in crate::sync) daemon_port: Option<u16>,
    pub(in crate::sync) timeout: Option<Duration>,
}

impl Lead {
    pub(super) fn run(&self, keeper: &Keeper<'_>, on_lane: &(dyn Fn(Lane) + Sync)) {
        let Err(reason) = self.open(keeper, on_lane) else { return };
        if keeper.is_over() {
            // The work was done before the lanes were there.
            return;
        }
        match self.wish.transport {
            Transport::Direct => keeper.session.fail(SyncError::NoLanes { reason }),
            _ if self.daemon_port.is_some() => {
                keeper
                    .session
                    .notice(format!("no further connections to the daemon, one carries everything: {reason}"));
            }
            _ => keeper.session.notice(format!(
                "no direct connection to the other host, the remote shell carries everything: {reason} \
                 (--lane-ports FROM-TO names ports to open in a firewall, --transport shell says that this is meant)"
            )),
        }
    }

    /// How long one direction is tried.
    pub(super) fn limit(&self) -> Duration {
        limits::ms(match self.wish.transport {
            Transport::Direct => limits::AUTHENTICATION_TIMEOUT_MS,
            _ => limits::LANE_CONNECT_TIMEOUT_MS,
        })
    }

    fn pass(&self, session: SessionId, token: [u8; 32]) -> Pass {
        let identity = Arc::clone(&self.identity);
        Pass { identity, peer_key: self.far_key, token, session, lanes: self.wish.lanes }
    }

    fn open(&self, keeper: &Keeper<'_>, on_lane: &(dyn Fn(Lane) + Sync)) -> Result<(), String> {
        let there = match self.far_listens(keeper, on_lane) {
            Ok(()) => return Ok(()),
            Err(reason) => reason,
        };
        if self.daemon_port.is_some() || keeper.is_over() {
            return Err(there);
        }
        self.we_listen(keeper, on_lane).map_err(|here| format!("{there}; and back: {here}"))
    }

    fn far_listens(&self, keeper: &Keeper<'_>, on_lane: &(dyn Fn(Lane) + Sync)) -> Result<(), String> {
        let (session, token) = secrets()?;
        let pass = self.pass(session, token);
        keeper.say(LaneWord::Listen {
            peer_key: self.identity.public_key().0,
            token,
            session,
            ports: self.wish.ports.as_ref().map(|ports| (*ports.start(), *ports.end())),
            lanes: lanes_max(self.wish.lanes),
        });
        match keeper.hear(limits::ms(limits::LANE_ANSWER_TIMEOUT_MS)) {
            Some(LaneWord::Listening { key, session, port, mut addresses }) => {
                if key != self.far_key.0 {
                    return Err("the other host answers with another key than at first".to_owned());
                }
                // The other end must not choose what we say in clear and to whom: over a shell the id is ours, at a
                // daemon the address is.
                let (pass, port) = match self.daemon_port {
                    Some(port) => {
                        addresses.clear();
                        (Pass { session, ..pass }, port)
                    }
                    None if session != pass.session => {
                        return Err("the other host answers for another session".to_owned());
                    }
                    None => (pass, port),
                };
                addresses.truncate(limits::LANE_ADDRESSES_MAX);
                for host in (self.hosts)() {
                    if !addresses.contains(&host) {
                        addresses.push(host);
                    }
                }
                let opening =
                    Opening { pass: &pass, over: &keeper.over, cut: &keeper.cut, timeout: self.timeout, on_lane };
                let opened = opening.connect(&addresses, port, self.limit());
                keeper.say(LaneWord::Close);
                opened.map(|_| ())
            }
            Some(LaneWord::Failed { reason }) => Err(reason),
            Some(_) => Err("the other host answers something else".to_owned()),
            None => Err("the other host does not answer".to_owned()),
        }
    }

    fn we_listen(&self, keeper: &Keeper<'_>, on_lane: &(dyn Fn(Lane) + Sync)) -> Result<(), String> {
        let (session, token) = secrets()?;
        let pass = self.pass(session, token);
        let listener =
            LaneListener::bind(self.wish.ports.clone(), None).map_err(|error| super::open::in_words(&error))?;
        keeper.say(LaneWord::Connect {
            peer_key: self.identity.public_key().0,
            token,
            session,
            port: listener.port(),
            addresses: Vec::new(),
            to_client: true,
            lanes: self.wish.lanes,
            limit_ms: self.limit().as_millis() as u32,
        });
        let answer = std::sync::Mutex::new(None);
        let is_closed = || {
            let mut answer = answer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if answer.is_none() {
                *answer = keeper.words.try_recv().ok();
            }
            answer.is_some() || keeper.is_over()
        };
        let opening = Opening { pass: &pass, over: &keeper.over, cut: &keeper.cut, timeout: self.timeout, on_lane };
        let deadline = clock::after(self.limit() + limits::ms(limits::LANE_ANSWER_TIMEOUT_MS));
        let opened = opening.listen(&listener, deadline, &is_closed);
        if opened > 0 {
            return Ok(());
        }
        let answer = answer.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        match answer {
            Some(LaneWord::Failed { reason }) => Err(reason),
            _ => Err("nobody connected".to_owned()),
        }
    }
}

/// A session's id and its token.
pub(super) fn secrets() -> Result<(SessionId, [u8; 32]), String> {
    let (mut id, mut token) = ([0; 16], [0; 32]);
    getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut token)).map_err(|error| error.to_string())?;
    // All zeros mean a new session.
    id[0] |= 1;
    Ok((SessionId(id), token))
}
