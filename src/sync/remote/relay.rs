//! The far end's monitor: what happens there is told to the client.

use std::sync::{Arc, Mutex, PoisonError};

use super::pump::Line;
use crate::monitor::{Counters, Event, Item, Monitor};
use crate::wire::Message;

/// Items gathered for one message, and bytes of their paths and targets: a message fits a frame however long they are.
const ITEMS_GATHERED_MAX: usize = 256;
/// See [`ITEMS_GATHERED_MAX`].
const ITEMS_GATHERED_BYTES_MAX: usize = 256 << 10;

/// Sends events over the session.
#[derive(Default)]
pub(super) struct Relay {
    counters: Arc<Counters>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    line: Option<Line>,
    items: Vec<Item>,
    item_bytes: usize,
    /// Told before the line was there.
    early: Vec<Event>,
}

impl Relay {
    /// Counts into `counters` where someone else looks at them.
    pub(super) fn counting(counters: Option<Arc<Counters>>) -> Relay {
        Relay { counters: counters.unwrap_or_default(), state: Mutex::default() }
    }

    /// From here on events leave.
    pub(super) fn attach(&self, line: Line) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.line = Some(line);
        for event in std::mem::take(&mut state.early) {
            state.send(event);
        }
    }

    /// Sends what was gathered, and lets go of the line.
    pub(super) fn detach(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.flush();
        state.line = None;
    }
}

impl State {
    fn flush(&mut self) {
        if let (Some(line), false) = (&self.line, self.items.is_empty()) {
            line.say(&Message::Items(std::mem::take(&mut self.items)));
            self.item_bytes = 0;
        }
    }

    fn send(&mut self, event: Event) {
        match event {
            Event::Item(item) => {
                self.item_bytes += item.path.len()
                    + item.link_target.as_ref().map_or(0, Vec::len)
                    + item.hard_link_to.as_ref().map_or(0, Vec::len);
                self.items.push(item);
                if self.items.len() >= ITEMS_GATHERED_MAX || self.item_bytes >= ITEMS_GATHERED_BYTES_MAX {
                    self.flush();
                }
            }
            event => {
                self.flush();
                if let Some(line) = &self.line {
                    line.say(&Message::Event(Box::new(event)));
                }
            }
        }
    }
}

impl Monitor for Relay {
    fn event(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.line.is_none() {
            state.early.push(event);
        } else {
            state.send(event);
        }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}
