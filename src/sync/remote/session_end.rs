//! How a session ends: both sides done, an error, or the user's wish to stop.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::limits;
use crate::model::Stats;
use crate::sync::SyncError;
use crate::sync::clock::Stopwatch;
use crate::sync::session::Session;
use crate::wire::Message;

use super::pump::Line;

/// What the peer said last.
#[derive(Default)]
pub(super) struct SessionEnd {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    peer_done: Option<Stats>,
    is_done: bool,
    link_over: bool,
    peer_stops: bool,
}

/// How a side's part ended, once its threads have: its own error counts first, then whether the peer was done.
pub(super) fn outcome(session: &Session, peer: Option<Stats>) -> Result<Stats, SyncError> {
    if let Some(error) = session.take_error() {
        return Err(error);
    }
    match peer {
        Some(stats) => Ok(stats),
        None if session.stop.requested() => Err(SyncError::Stopped),
        None => Err(SyncError::Link(crate::net::LinkError::Closed)),
    }
}

impl SessionEnd {
    /// The peer is done, with its totals.
    pub(super) fn peer_done(&self, stats: Stats) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.peer_done = Some(stats);
        state.is_done = true;
        drop(state);
        self.changed.notify_all();
    }

    /// The peer wants the session to end.
    pub(super) fn peer_stops(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).peer_stops = true;
        self.changed.notify_all();
    }

    /// What a far end tells its client of its own end: an error, or a signal that was not the client's wish. Without
    /// that word an end by signal would look like a success.
    pub(super) fn for_client(&self, session: &Session) -> Option<SyncError> {
        let by_peer = self.state.lock().unwrap_or_else(PoisonError::into_inner).peer_stops;
        session.take_error().or_else(|| (session.stop.requested() && !by_peer).then_some(SyncError::StoppedHere))
    }

    /// Nothing more will come.
    pub(super) fn link_over(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).link_over = true;
        self.changed.notify_all();
    }

    /// Whether the peer has said that it is done.
    pub(super) fn is_done(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_done
    }

    /// Waits until nothing more will come, at most `limit_ms`.
    pub(super) fn wait_link_over(&self, limit_ms: u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = Duration::from_millis(limit_ms);
        let _over_or_too_late = self.changed.wait_timeout_while(state, limit, |state| !state.link_over);
    }

    /// Wakes the one who waits.
    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Waits until the peer is done. A wish to stop is passed on once, and the peer has a while to end in order.
    /// `None`: it did not.
    pub(super) fn wait(&self, session: &Session, line: &Line, passes_stop_on: bool) -> Option<Stats> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stopping: Option<Stopwatch> = None;
        loop {
            if let Some(stats) = state.peer_done.take() {
                return Some(stats);
            }
            if state.link_over {
                return None;
            }
            if session.is_ending() {
                match &stopping {
                    None => {
                        if passes_stop_on {
                            line.say(&Message::Stop);
                        }
                        stopping = Some(Stopwatch::start());
                    }
                    Some(watch) if watch.elapsed_ms() > limits::STOP_GRACE_MS => return None,
                    Some(_) => {}
                }
            }
            let (next, _) =
                self.changed.wait_timeout(state, Duration::from_millis(50)).unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }
}
