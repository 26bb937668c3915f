//! Who is connected, and who has to go: the bounds of a daemon, without a socket.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::config::ServeLimits;
use crate::limits;

/// Numbers connections in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ConnectionId(pub(super) u64);

/// Why a connection is not served. Each is a label of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// All connections are taken by peers that have said who they are.
    Connections,
    /// All connections of this address are.
    Address,
    /// It was the oldest that had not said who it is, and another needed its place.
    Displaced,
    /// It did not say who it is in time.
    Deadline,
    /// It does not begin as a connection of this protocol does.
    Preamble,
    /// It closed before it had begun.
    Closed,
    /// It names a session that is not here.
    UnknownSession,
    /// Its session has enough lanes that wait.
    Lanes,
    /// All sessions are taken.
    Sessions,
    /// All sessions of this key are.
    Key,
    /// All sessions of this module are.
    Module,
    /// The daemon is about to end.
    Draining,
    /// It could not prove that it owns a key, or none that is known.
    Authentication,
    /// It asked for what it may not have.
    Forbidden,
    /// Something here failed.
    Failure,
}

impl Refusal {
    /// All of them.
    pub(super) const ALL: [Refusal; 15] = [
        Refusal::Connections,
        Refusal::Address,
        Refusal::Displaced,
        Refusal::Deadline,
        Refusal::Preamble,
        Refusal::Closed,
        Refusal::UnknownSession,
        Refusal::Lanes,
        Refusal::Sessions,
        Refusal::Key,
        Refusal::Module,
        Refusal::Draining,
        Refusal::Authentication,
        Refusal::Forbidden,
        Refusal::Failure,
    ];

    /// As a label of the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::Connections => "connections",
            Refusal::Address => "address",
            Refusal::Displaced => "displaced",
            Refusal::Deadline => "deadline",
            Refusal::Preamble => "preamble",
            Refusal::Closed => "closed",
            Refusal::UnknownSession => "unknown_session",
            Refusal::Lanes => "lanes",
            Refusal::Sessions => "sessions",
            Refusal::Key => "key",
            Refusal::Module => "module",
            Refusal::Draining => "draining",
            Refusal::Authentication => "authentication",
            Refusal::Forbidden => "forbidden",
            Refusal::Failure => "failure",
        }
    }

    /// In words, for the log and for the peer.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::Connections => "too many connections",
            Refusal::Address => "too many connections from this address",
            Refusal::Displaced => "gave way to a newer connection before it had said who it is",
            Refusal::Deadline => "did not say who it is in time",
            Refusal::Preamble => "does not speak this protocol",
            Refusal::Closed => "closed before it had begun",
            Refusal::UnknownSession => "names a session that is not here",
            Refusal::Lanes => "too many lanes of its session wait",
            Refusal::Sessions => "too many sessions",
            Refusal::Key => "too many sessions of this key",
            Refusal::Module => "too many sessions of this module",
            Refusal::Draining => "the daemon is about to end",
            Refusal::Authentication => "did not prove to own a key that is known here",
            Refusal::Forbidden => "asked for what it may not have",
            Refusal::Failure => "could not be served",
        }
    }
}

/// Whether a connection gets its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Yes; the one in it, where there is one, has to go for it.
    Now(Option<ConnectionId>),
    /// Not before another leaves or says who it is.
    Wait,
}

#[derive(Debug)]
enum Stage {
    /// Nothing but a descriptor.
    Waiting,
    /// It wants a process, and its network has as many as it may.
    Queued,
    /// A process that finds out who it is.
    Worker,
    Session {
        key: String,
        module: Option<String>,
    },
}

#[derive(Debug)]
struct Entry {
    network: IpAddr,
    stage: Stage,
}

/// All connections that are held.
#[derive(Debug)]
pub(super) struct Book {
    limits: ServeLimits,
    next: u64,
    /// By number, so that the first one is the oldest.
    entries: BTreeMap<ConnectionId, Entry>,
    per_network: HashMap<IpAddr, usize>,
}

/// What is counted as one address: a host has a whole /64 to itself in IPv6.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

impl Book {
    pub(super) fn new(limits: ServeLimits) -> Book {
        Book { limits, next: 1, entries: BTreeMap::new(), per_network: HashMap::new() }
    }

    /// Other bounds from now on; who is there stays.
    pub(super) fn set_limits(&mut self, limits: ServeLimits) {
        self.limits = limits;
    }

    /// A connection came. It is in the book from here on; the second, where there is one, has to go for it.
    pub(super) fn accept(&mut self, from: IpAddr) -> Result<(ConnectionId, Option<ConnectionId>), Refusal> {
        let network = network_of(from);
        let gone = if self.per_network.get(&network).copied().unwrap_or(0) >= self.limits.connections_per_address {
            Some(self.weakest(network).ok_or(Refusal::Address)?)
        } else if self.entries.len() >= self.limits.connections || self.unauthenticated() >= self.limits.unauthenticated
        {
            // One network's flood displaces itself before it displaces anybody else.
            let (most, _) = self.busiest(Entry::is_unauthenticated).ok_or(Refusal::Connections)?;
            Some(self.weakest(most).ok_or(Refusal::Connections)?)
        } else {
            None
        };
        if let Some(gone) = gone {
            self.leave(gone);
        }
        let id = ConnectionId(self.next);
        self.next += 1;
        self.entries.insert(id, Entry { network, stage: Stage::Waiting });
        *self.per_network.entry(network).or_default() += 1;
        Ok((id, gone))
    }

    /// A connection wants a session: it gets a process, or has to wait for one.
    ///
    /// Nobody loses a process to a newcomer of his own network, and the first of a network that came gets the next one.
    pub(super) fn start(&mut self, id: ConnectionId) -> Result<Start, Refusal> {
        // Unauthenticated workers are not sessions yet: they must not keep those out that will be.
        if self.sessions() >= self.limits.sessions {
            return Err(Refusal::Sessions);
        }
        let network = self.entries.get(&id).ok_or(Refusal::Displaced)?.network;
        let is_ahead = |entry: &Entry| entry.network == network && matches!(entry.stage, Stage::Queued);
        let queued = self.entries.range(..id).any(|(_, entry)| is_ahead(entry));
        let ours = self.entries.values().filter(|entry| entry.network == network && entry.is_worker()).count();
        let workers = self.entries.values().filter(|entry| entry.is_worker()).count();
        let mut gone = None;
        let mut waits = queued || ours >= limits::SERVE_WORKERS_PER_NETWORK_MAX;
        if !waits && workers >= limits::SERVE_WORKERS_UNAUTHENTICATED_MAX {
            let busiest = self.busiest(Entry::is_worker).filter(|(_, count)| *count > ours);
            match busiest {
                Some((most, _)) => gone = self.oldest(|entry| entry.network == most && entry.is_worker()),
                None => waits = true,
            }
        }
        let entry = self.entries.get_mut(&id).ok_or(Refusal::Displaced)?;
        if waits {
            entry.stage = Stage::Queued;
            return Ok(Start::Wait);
        }
        entry.stage = Stage::Worker;
        if let Some(gone) = gone {
            self.leave(gone);
        }
        Ok(Start::Now(gone))
    }

    /// It has proven to own `key`.
    pub(super) fn authenticate(&mut self, id: ConnectionId, key: &str) -> Result<(), Refusal> {
        let of_key = self.entries.values().filter(|entry| entry.key() == Some(key)).count();
        if of_key >= self.limits.sessions_per_key {
            return Err(Refusal::Key);
        }
        if self.sessions() >= self.limits.sessions {
            return Err(Refusal::Sessions);
        }
        let entry = self.entries.get_mut(&id).ok_or(Refusal::Displaced)?;
        entry.stage = Stage::Session { key: key.to_owned(), module: None };
        Ok(())
    }

    /// It wants a module, which allows `most` sessions.
    pub(super) fn enter(&mut self, id: ConnectionId, name: &str, most: Option<usize>) -> Result<(), Refusal> {
        if most.is_some_and(|most| self.in_module(name) >= most) {
            return Err(Refusal::Module);
        }
        match self.entries.get_mut(&id).map(|entry| &mut entry.stage) {
            Some(Stage::Session { module: module @ None, .. }) => {
                *module = Some(name.to_owned());
                Ok(())
            }
            _ => Err(Refusal::Forbidden),
        }
    }

    /// It is gone. Nothing happens where it is not in the book any more.
    pub(super) fn leave(&mut self, id: ConnectionId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        if let Some(count) = self.per_network.get_mut(&entry.network) {
            *count -= 1;
            if *count == 0 {
                self.per_network.remove(&entry.network);
            }
        }
    }

    /// Sessions of peers that have said who they are.
    pub(super) fn sessions(&self) -> usize {
        self.entries.values().filter(|entry| !entry.is_unauthenticated()).count()
    }

    /// Connections of peers that have not.
    pub(super) fn unauthenticated(&self) -> usize {
        self.entries.values().filter(|entry| entry.is_unauthenticated()).count()
    }

    fn in_module(&self, name: &str) -> usize {
        let inside =
            |entry: &&Entry| matches!(&entry.stage, Stage::Session { module: Some(module), .. } if module == name);
        self.entries.values().filter(inside).count()
    }

    /// The network that has the most connections like this, and how many; of several, the one whose oldest came first.
    fn busiest(&self, like: impl Fn(&Entry) -> bool) -> Option<(IpAddr, usize)> {
        let mut counts: HashMap<IpAddr, (usize, ConnectionId)> = HashMap::new();
        for (&id, entry) in self.entries.iter().filter(|(_, entry)| like(entry)) {
            counts.entry(entry.network).or_insert((0, id)).0 += 1;
        }
        let busiest = counts.into_iter().max_by_key(|(_, (count, oldest))| (*count, std::cmp::Reverse(*oldest)));
        busiest.map(|(network, (count, _))| (network, count))
    }

    /// Who of a network goes first: the oldest without a process, and else the oldest in mid-handshake.
    fn weakest(&self, network: IpAddr) -> Option<ConnectionId> {
        let of_network = |entry: &Entry| entry.network == network && entry.is_unauthenticated();
        let idle = self.oldest(|entry| of_network(entry) && !entry.is_worker());
        idle.or_else(|| self.oldest(of_network))
    }

    fn oldest(&self, like: impl Fn(&Entry) -> bool) -> Option<ConnectionId> {
        self.entries.iter().find(|(_, entry)| like(entry)).map(|(&id, _)| id)
    }
}

impl Entry {
    fn is_unauthenticated(&self) -> bool {
        !matches!(self.stage, Stage::Session { .. })
    }

    fn is_worker(&self) -> bool {
        matches!(self.stage, Stage::Worker)
    }

    fn key(&self) -> Option<&str> {
        match &self.stage {
            Stage::Session { key, .. } => Some(key),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> ServeLimits {
        ServeLimits { connections: 6, connections_per_address: 3, unauthenticated: 4, sessions: 3, sessions_per_key: 2 }
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn authenticated(book: &mut Book, from: u8, key: &str) -> Result<ConnectionId, Refusal> {
        let (id, _) = book.accept(address(from))?;
        book.start(id)?;
        book.authenticate(id, key).map(|()| id).inspect_err(|_| book.leave(id))
    }

    #[test]
    fn the_oldest_unauthenticated_one_goes() {
        let mut book = Book::new(limits());
        let first = authenticated(&mut book, 1, "a").unwrap();
        let ids: Vec<_> = (2..6).map(|from| book.accept(address(from)).unwrap()).collect();
        assert!(ids.iter().all(|(_, gone)| gone.is_none()));
        let (_, gone) = book.accept(address(9)).unwrap();
        assert_eq!(gone, Some(ids[0].0));
        assert_ne!(gone, Some(first));
    }

    #[test]
    fn an_address_displaces_its_own() {
        let mut book = Book::new(limits());
        let (other, _) = book.accept(address(1)).unwrap();
        let ids: Vec<_> = (0..3).map(|_| book.accept(address(2)).unwrap().0).collect();
        assert_eq!(book.accept(address(2)).unwrap().1, Some(ids[0]));
        assert!(book.entries.contains_key(&other));
        // Full of sessions, an address gets no more.
        let mut book = Book::new(limits());
        for key in ["a", "b", "c"] {
            authenticated(&mut book, 2, key).unwrap();
        }
        assert_eq!(book.accept(address(2)), Err(Refusal::Address));
        assert!(book.accept(address(1)).is_ok());
    }

    #[test]
    fn sessions_are_bounded_by_key_module_and_number() {
        let mut book = Book::new(limits());
        let one = authenticated(&mut book, 1, "a").unwrap();
        let two = authenticated(&mut book, 1, "a").unwrap();
        assert_eq!(authenticated(&mut book, 1, "a"), Err(Refusal::Key));
        let three = authenticated(&mut book, 2, "b").unwrap();
        let (id, _) = book.accept(address(3)).unwrap();
        assert_eq!(book.start(id), Err(Refusal::Sessions));
        book.enter(one, "m", Some(1)).unwrap();
        assert_eq!(book.enter(two, "m", Some(1)), Err(Refusal::Module));
        assert_eq!(book.enter(one, "n", None), Err(Refusal::Forbidden));
        book.enter(three, "n", None).unwrap();
        book.leave(one);
        book.enter(two, "m", Some(1)).unwrap();
        assert_eq!(book.enter(id, "m", None), Err(Refusal::Forbidden));
    }

    fn started(book: &mut Book, from: u8) -> (ConnectionId, Start) {
        let (id, _) = book.accept(address(from)).unwrap();
        (id, book.start(id).unwrap())
    }

    #[test]
    fn a_network_waits_for_its_own_workers() {
        let mut book = Book::new(ServeLimits::default());
        let first: Vec<_> = (0..limits::SERVE_WORKERS_PER_NETWORK_MAX)
            .map(|_| started(&mut book, 1))
            .map(|(id, start)| {
                assert_eq!(start, Start::Now(None));
                id
            })
            .collect();
        let (second, start) = started(&mut book, 1);
        assert_eq!(start, Start::Wait);
        let (third, start) = started(&mut book, 1);
        assert_eq!(start, Start::Wait);
        // Others are not concerned.
        assert_eq!(started(&mut book, 2).1, Start::Now(None));
        book.authenticate(first[3], "a").unwrap();
        assert_eq!(book.start(third), Ok(Start::Wait), "the one before it comes first");
        assert_eq!(book.start(second), Ok(Start::Now(None)));
        book.leave(first[0]);
        assert_eq!(book.start(third), Ok(Start::Now(None)));
        assert!(first[1..].iter().all(|id| book.entries.contains_key(id)));
    }

    #[test]
    fn workers_of_the_busiest_network_give_way() {
        let mut book = Book::new(ServeLimits::default());
        let honest = started(&mut book, 1).0;
        let mut others = Vec::new();
        // Networks 2 to 4 have eight each, 5 has seven.
        for from in [2, 3, 4, 5] {
            for _ in 0..limits::SERVE_WORKERS_PER_NETWORK_MAX {
                others.push(started(&mut book, from));
            }
        }
        let (last, start) = others.pop().unwrap();
        assert_eq!(start, Start::Now(Some(others[0].0)), "the oldest of the busiest goes");
        assert!(book.entries.contains_key(&honest) && book.entries.contains_key(&last));
        let (_, start) = started(&mut book, 6);
        assert_eq!(start, Start::Now(Some(others[8].0)));
        assert!(book.entries.contains_key(&honest));
        assert_eq!(book.authenticate(others[0].0, "a"), Err(Refusal::Displaced));
        assert_eq!(book.start(others[0].0), Err(Refusal::Displaced));
    }

    #[test]
    fn silence_of_one_network_displaces_its_own() {
        let bounds = ServeLimits { connections_per_address: 100, ..limits() };
        let mut book = Book::new(bounds);
        let honest = book.accept(address(1)).unwrap().0;
        let flood: Vec<_> = (0..3).map(|_| book.accept(address(2)).unwrap().0).collect();
        assert_eq!(book.accept(address(3)).unwrap().1, Some(flood[0]));
        assert!(book.entries.contains_key(&honest));
    }

    #[test]
    fn a_network_is_one_address() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }

    proptest! {
        /// Whatever happens in whatever order: bounds hold, counts agree, nobody who said who he is goes.
        #[test]
        fn bounds_hold(steps in proptest::collection::vec((0..5u8, 0..8u8, 0..40u64), 0..300)) {
            let bounds = limits();
            let mut book = Book::new(bounds);
            for (what, from, which) in steps {
                let id = ConnectionId(which);
                let before: Vec<ConnectionId> =
                    book.entries.iter().filter(|(_, entry)| !entry.is_unauthenticated()).map(|(id, _)| *id).collect();
                match what {
                    0 => { let _ = book.accept(address(from)); }
                    1 => if book.entries.get(&id).is_some_and(|e| matches!(e.stage, Stage::Waiting | Stage::Queued)) {
                        let _ = book.start(id);
                    }
                    2 => if book.entries.get(&id).is_some_and(|entry| matches!(entry.stage, Stage::Worker)) {
                        let _ = book.authenticate(id, ["a", "b"][usize::from(from % 2)]);
                    }
                    3 => { let _ = book.enter(id, "m", Some(2)); }
                    _ => book.leave(id),
                }
                if what != 4 {
                    prop_assert!(before.iter().all(|id| book.entries.contains_key(id)));
                }
                prop_assert!(book.entries.len() <= bounds.connections);
                prop_assert!(book.sessions() <= bounds.sessions);
                prop_assert!(book.unauthenticated() <= bounds.unauthenticated);
                prop_assert!(book.in_module("m") <= 2);
                prop_assert_eq!(book.per_network.values().sum::<usize>(), book.entries.len());
                prop_assert!(book.per_network.values().all(|count| *count <= bounds.connections_per_address));
            }
        }
    }
}
