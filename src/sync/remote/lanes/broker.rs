//! Lanes between two far ends, arranged by the client of both.

use std::time::Duration;

use crossbeam_channel::Receiver as Inbox;

use super::Lead;
use super::lead::secrets;
use crate::limits;
use crate::sync::clock::Stopwatch;
use crate::sync::receiver::IDLE_LOOK;
use crate::sync::remote::pump::Line;
use crate::wire::{LaneWord, Message};

/// A far end that is told what to do about lanes.
pub(in crate::sync::remote) struct Party<'a> {
    pub(in crate::sync::remote) line: &'a Line,
    pub(in crate::sync::remote) words: &'a Inbox<LaneWord>,
    pub(in crate::sync::remote) lead: &'a Lead,
    pub(in crate::sync::remote) is_over: &'a dyn Fn() -> bool,
}

impl Party<'_> {
    fn say(&self, word: LaneWord) {
        self.line.say(&Message::Lane(word));
    }

    fn hear(&self, limit: Duration) -> Result<LaneWord, String> {
        let watch = Stopwatch::start();
        loop {
            if let Ok(word) = self.words.recv_timeout(IDLE_LOOK) {
                return Ok(word);
            }
            if (self.is_over)() || u128::from(watch.elapsed_ms()) >= limit.as_millis() {
                return Err("a host does not answer".to_owned());
            }
        }
    }
}

/// Has one end listen and the other connect; why it did not work, in words.
pub(in crate::sync::remote) fn broker(listener: &Party<'_>, connector: &Party<'_>) -> Result<(), String> {
    let (session, token) = secrets()?;
    let wish = &listener.lead.wish;
    let answer_limit = limits::ms(limits::LANE_ANSWER_TIMEOUT_MS);
    listener.say(LaneWord::Listen {
        peer_key: connector.lead.far_key.0,
        token,
        session,
        ports: wish.ports.as_ref().map(|ports| (*ports.start(), *ports.end())),
        lanes: super::lanes_max(wish.lanes),
    });
    let (key, port, mut addresses) = match listener.hear(answer_limit)? {
        LaneWord::Listening { key, port, addresses, .. } => (key, port, addresses),
        LaneWord::Failed { reason } => return Err(reason),
        _ => return Err("a host answers something else".to_owned()),
    };
    if key != listener.lead.far_key.0 {
        return Err("a host answers with another key than at first".to_owned());
    }
    addresses.truncate(limits::LANE_ADDRESSES_MAX);
    addresses.extend((listener.lead.hosts)().into_iter().filter(|host| !addresses.contains(host)).collect::<Vec<_>>());
    let limit = listener.lead.limit();
    connector.say(LaneWord::Connect {
        peer_key: key,
        token,
        session,
        port,
        addresses,
        to_client: false,
        lanes: wish.lanes,
        limit_ms: limit.as_millis() as u32,
    });
    let answer = connector.hear(limit + answer_limit);
    listener.say(LaneWord::Close);
    match answer? {
        LaneWord::Opened { .. } => Ok(()),
        LaneWord::Failed { reason } => Err(reason),
        _ => Err("a host answers something else".to_owned()),
    }
}
