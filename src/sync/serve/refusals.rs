//! Connections that are not served, for the log: the first of an address is told at once, those that follow within a
//! while share one line. A flood must not fill the log, nor hide the others in it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::book::{Refusal, network_of};
use crate::limits;

/// Whose refusals share a line; `None`: of all addresses for which there is no room.
pub(super) type Origin = Option<IpAddr>;

/// What is not told yet, by address.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    open: HashMap<Origin, BTreeMap<Refusal, u64>>,
}

/// What becomes of one refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is told by itself; [`Refusals::take`] is due for its origin after [`limits::SERVE_REFUSALS_MERGED_MS`].
    Now(Origin),
    /// It is counted.
    Later,
}

impl Refusals {
    /// One more.
    pub(super) fn add(&mut self, from: IpAddr, why: Refusal) -> Told {
        let own = Some(network_of(from));
        let full = self.open.len() >= limits::SERVE_REFUSALS_ADDRESSES_MAX;
        let origin = if self.open.contains_key(&own) || !full { own } else { None };
        match self.open.get_mut(&origin) {
            Some(counts) => {
                *counts.entry(why).or_default() += 1;
                Told::Later
            }
            None => {
                self.open.insert(origin, BTreeMap::new());
                Told::Now(origin)
            }
        }
    }

    /// What came since the last line; where there is something, this is due again after as long. `None`: nothing, and
    /// the next one is told at once.
    pub(super) fn take(&mut self, origin: Origin) -> Option<Vec<(Refusal, u64)>> {
        let counts = self.open.get_mut(&origin)?;
        if counts.is_empty() {
            self.open.remove(&origin);
            return None;
        }
        Some(std::mem::take(counts).into_iter().collect())
    }

    /// Everybody of whom there may be something to tell.
    pub(super) fn origins(&self) -> Vec<Origin> {
        self.open.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_address_has_one_line_at_a_time() {
        let mut refusals = Refusals::default();
        let [a, b] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        assert_eq!(refusals.add(a, Refusal::Preamble), Told::Now(Some(a)));
        for _ in 0..5 {
            assert_eq!(refusals.add(a, Refusal::Displaced), Told::Later);
        }
        assert_eq!(refusals.add(a, Refusal::Closed), Told::Later);
        assert_eq!(refusals.add(b, Refusal::Closed), Told::Now(Some(b)));
        assert_eq!(refusals.take(Some(a)), Some(vec![(Refusal::Displaced, 5), (Refusal::Closed, 1)]));
        assert_eq!(refusals.take(Some(b)), None);
        // It went on: still counted.
        assert_eq!(refusals.add(a, Refusal::Closed), Told::Later);
        assert_eq!(refusals.take(Some(a)), Some(vec![(Refusal::Closed, 1)]));
        assert_eq!(refusals.take(Some(a)), None);
        assert_eq!(refusals.add(a, Refusal::Closed), Told::Now(Some(a)));
        assert_eq!(refusals.origins(), [Some(a)]);
    }

    #[test]
    fn addresses_without_room_share_a_line() {
        let mut refusals = Refusals::default();
        let address = |number: usize| IpAddr::from(Ipv4Addr::from_bits(number as u32));
        for number in 0..limits::SERVE_REFUSALS_ADDRESSES_MAX {
            assert_eq!(refusals.add(address(number), Refusal::Closed), Told::Now(Some(address(number))));
        }
        let more = limits::SERVE_REFUSALS_ADDRESSES_MAX;
        assert_eq!(refusals.add(address(more), Refusal::Closed), Told::Now(None));
        assert_eq!(refusals.add(address(more + 1), Refusal::Closed), Told::Later);
        assert_eq!(refusals.take(None), Some(vec![(Refusal::Closed, 1)]));
        assert!(refusals.open.len() <= limits::SERVE_REFUSALS_ADDRESSES_MAX + 1);
    }
}
