//! Direct lanes: TLS connections between the two ends, beside the control lane.
//!
//! The client leads. It asks one end to listen and the other to connect, and turns that around where it does not work.
//! Whoever listens does so only until the lanes are there, and takes only who owns the key that the control lane told
//! it and shows the token, once a lane.

mod broker;
mod follow;
mod lead;
mod open;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver as Inbox, Sender as Outbox};

pub(super) use self::broker::{Party, broker};
pub(super) use self::follow::Follow;
pub(in crate::sync) use self::follow::{Door, LaneSource};
pub(super) use self::lead::Lead;
pub(super) use self::open::in_words;
use super::pump::Line;
use crate::limits;
use crate::net::{Identity, LinkReader, LinkWriter, PublicKey};
use crate::sync::SyncError;
use crate::sync::session::Session;
use crate::wire::{FlowError, LaneWord, Transport};

/// Words about lanes that wait for the keeper: the peer has no reason to say more.
const WORDS_WAITING_MAX: usize = 16;

/// A lane that may be used.
pub(super) struct Lane {
    pub(super) reader: LinkReader,
    pub(super) writer: LinkWriter,
}

/// What this end does about lanes.
pub(super) enum LanePlan {
    /// Nothing: there is no content to send, or the user wants the shell alone.
    None,
    /// At the client.
    Lead(Box<Lead>),
    /// At the far end.
    Follow(Follow),
}

impl LanePlan {
    pub(super) fn transport(&self) -> Transport {
        match self {
            LanePlan::None => Transport::Shell,
            LanePlan::Lead(lead) => lead.wish.transport,
            LanePlan::Follow(follow) => follow.transport,
        }
    }
}

/// What the user said about lanes.
#[derive(Debug, Clone)]
pub struct LaneWish {
    /// `--transport`.
    pub transport: Transport,
    /// `--lanes`; by cores and by the link where it is not given.
    pub lanes: Option<u8>,
    /// `--lane-ports`.
    pub ports: Option<RangeInclusive<u16>>,
}

/// Where the link's reader puts words about lanes.
#[derive(Debug)]
pub(super) struct LaneDesk {
    words: Outbox<LaneWord>,
    over: Arc<AtomicBool>,
}

impl LaneDesk {
    pub(super) fn new() -> (LaneDesk, Inbox<LaneWord>) {
        let (words, inbox) = crossbeam_channel::bounded(WORDS_WAITING_MAX);
        (LaneDesk { words, over: Arc::default() }, inbox)
    }

    /// Hands a word on to the keeper. Never waits.
    pub(super) fn hear(&self, word: LaneWord) -> Result<(), SyncError> {
        match self.words.try_send(word) {
            Err(crossbeam_channel::TrySendError::Full(_)) => {
                Err(FlowError::Excess { what: "words about lanes" }.into())
            }
            // The keeper has ended: lanes are there, or will not be.
            Ok(()) | Err(crossbeam_channel::TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Raised when no lanes are wanted any more.
    pub(super) fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.over)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// The work is done: nobody waits for lanes any more.
    pub(super) fn close(&self) {
        self.over.store(true, Ordering::Release);
    }
}

/// The thread that gets lanes.
pub(super) struct Keeper<'a> {
    pub(super) session: &'a Arc<Session>,
    pub(super) line: Line,
    pub(super) words: Inbox<LaneWord>,
    pub(super) over: Arc<AtomicBool>,
    /// Cuts the lanes together with the control lane.
    pub(super) cut: Arc<AtomicBool>,
}

impl Keeper<'_> {
    /// Gets lanes as planned; each is handed to `on_lane`. Ends when there is nothing more to get.
    pub(super) fn run(&self, plan: LanePlan, on_lane: &(dyn Fn(Lane) + Sync)) {
        match plan {
            LanePlan::None => {}
            LanePlan::Lead(lead) => lead.run(self, on_lane),
            LanePlan::Follow(follow) => follow.run(self, on_lane),
        }
    }

    /// Whether lanes are of no use any more.
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.session.is_ending()
    }

    /// The next word about lanes, for at most `limit`.
    fn hear(&self, limit: Duration) -> Option<LaneWord> {
        let watch = crate::sync::clock::Stopwatch::start();
        loop {
            if let Ok(word) = self.words.recv_timeout(crate::sync::receiver::IDLE_LOOK) {
                return Some(word);
            }
            if self.is_over() || u128::from(watch.elapsed_ms()) >= limit.as_millis() {
                return None;
            }
        }
    }

    fn say(&self, word: LaneWord) {
        self.line.say(&crate::wire::Message::Lane(word));
    }
}

/// What makes the lanes of one session.
#[derive(Debug, Clone)]
struct Pass {
    identity: Arc<Identity>,
    peer_key: PublicKey,
    token: [u8; 32],
    session: crate::wire::SessionId,
    /// So many; by cores and by the link where it is not said.
    lanes: Option<u8>,
}

/// Lanes at most, of those that may be asked for.
fn lanes_max(wanted: Option<u8>) -> u8 {
    wanted.unwrap_or(limits::LANES_MAX as u8).clamp(1, limits::LANES_MAX as u8)
}
