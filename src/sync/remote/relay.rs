//! The far end's monitor: what happens there is told to the client.

use std::sync::{Arc, Mutex, PoisonError};

use super::pump::Line;
use crate::model::Problem;
use crate::monitor::{Counters, Event, Item, Monitor, Phase};
use crate::wire::Message;

/// Items gathered for one message, and bytes of their paths and targets: a message fits a frame however long they are.
const ITEMS_GATHERED_MAX: usize = 256;
/// See [`ITEMS_GATHERED_MAX`].
const ITEMS_GATHERED_BYTES_MAX: usize = 256 << 10;

/// Sends events over the session.
#[derive(Default)]
pub(super) struct Relay {
    counters: Arc<Counters>,
    /// The client must not hear what is here besides what it sends.
    hides_names: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    line: Option<Line>,
    items: Vec<Item>,
    item_bytes: usize,
    /// Told before the line was there.
    early: Vec<Event>,
    /// From here on problems may be about what the client never named.
    deletes: bool,
}

impl Relay {
    /// Counts into `counters` where someone else looks at them.
    /// With `hides_names` items, and names of what is deleted, stay here: they are counted only.
    pub(super) fn new(counters: Option<Arc<Counters>>, hides_names: bool) -> Relay {
        Relay { counters: counters.unwrap_or_default(), hides_names, state: Mutex::default() }
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

/// Stands for names that a client must not learn.
const HIDDEN: &[u8] = b"(an item of the module)";

impl State {
    fn without_names(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Item(_) | Event::Detail(_) => None,
            Event::Phase(Phase::Deleting) => {
                self.deletes = true;
                Some(event)
            }
            Event::Problem(problem) if self.deletes => {
                Some(Event::Problem(Problem { path: HIDDEN.to_vec(), ..problem }))
            }
            event => Some(event),
        }
    }

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
        let Some(event) = (if self.hides_names { state.without_names(event) } else { Some(event) }) else { return };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Operation, ProblemKind};

    fn told(hides_names: bool) -> Vec<Event> {
        let relay = Relay::new(None, hides_names);
        let problem =
            |path: &[u8]| Event::Problem(Problem::new(ProblemKind::Destination, Operation::Delete, path, "why"));
        relay.event(problem(b"sent"));
        relay.event(Event::Detail("cannot delete non-empty directory: there".to_owned()));
        relay.event(Event::Phase(Phase::Deleting));
        relay.event(problem(b"there"));
        let mut state = relay.state.lock().unwrap();
        std::mem::take(&mut state.early)
    }

    #[test]
    fn names_of_what_is_deleted_can_be_hidden() {
        assert_eq!(told(false).len(), 4);
        let told = told(true);
        assert_eq!(told.len(), 3);
        let text = format!("{told:?}");
        let bytes = |name: &[u8]| format!("{name:?}");
        assert!(text.contains(&bytes(b"sent")) && text.contains(&bytes(HIDDEN)) && !text.contains(&bytes(b"there")));
    }
}
