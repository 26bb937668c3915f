//! Making lanes: connecting and accepting, each ending in a lane that may be used.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Lane, Pass, lanes_max};
use crate::limits;
use crate::net::{LaneListener, PeerKey, TcpError, TlsChannel, connect_tcp, read_first, tls_accept, tls_connect};
use crate::sync::clock::{self, Stopwatch};
use crate::sync::remote::pump::{read_message, write_message};
use crate::wire::{Message, PREAMBLE_BYTES, Preamble};

/// A link that takes longer than this to open is long: several streams fill it, whatever the cores.
const LONG_LINK_MS: u64 = 15;

/// How long a look at other things may be put off while a listener waits.
const ACCEPT_LOOK: Duration = Duration::from_millis(50);

/// What lanes of a session have in common at this end.
pub(super) struct Opening<'a> {
    pub(super) pass: &'a Pass,
    /// Ends every wait while lanes are made.
    pub(super) over: &'a AtomicBool,
    /// Ends every wait on a lane.
    pub(super) cut: &'a Arc<AtomicBool>,
    /// `--timeout`: after so long without a sign of life the kernel ends a lane.
    pub(super) timeout: Option<Duration>,
    pub(super) on_lane: &'a (dyn Fn(Lane) + Sync),
}

impl Opening<'_> {
    /// Connects lanes to the first of `hosts` that works. Their number, or why there are none, in words.
    pub(super) fn connect(&self, hosts: &[String], port: u16, limit: Duration) -> Result<usize, String> {
        let deadline = clock::after(limit);
        let mut reasons: Vec<String> = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let share = deadline.saturating_duration_since(clock::instant()) / (hosts.len() - index) as u32;
            let watch = Stopwatch::start();
            match self.connect_one(host, port, 0, clock::after(share)) {
                Ok(lane) => {
                    let is_long = watch.elapsed_ms() >= LONG_LINK_MS;
                    (self.on_lane)(lane);
                    return Ok(1 + self.connect_more(host, port, is_long, limit));
                }
                Err(reason) if reasons.contains(&reason) => {}
                Err(reason) => reasons.push(reason),
            }
        }
        if reasons.is_empty() {
            reasons.push("no address is known".to_owned());
        }
        Err(reasons.join("; "))
    }

    /// The lanes after the first, side by side. Those that do not come about are done without.
    fn connect_more(&self, host: &str, port: u16, is_long: bool, limit: Duration) -> usize {
        let cores = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, limits::LANES_MAX);
        let by_link = if is_long { limits::LANES_MAX } else { cores };
        let wanted = self.pass.lanes.map_or(by_link, |_| usize::from(lanes_max(self.pass.lanes)));
        let opened = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for number in 1..wanted as u8 {
                let opened = &opened;
                let work = move || {
                    if let Ok(lane) = self.connect_one(host, port, number, clock::after(limit)) {
                        opened.fetch_add(1, Ordering::Relaxed);
                        (self.on_lane)(lane);
                    }
                };
                if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    return;
                }
            }
        });
        opened.into_inner()
    }

    fn connect_one(&self, host: &str, port: u16, number: u8, deadline: Instant) -> Result<Lane, String> {
        let preamble = Preamble { session: Some(self.pass.session) }.encode();
        let stream = connect_tcp(host, port, &preamble, deadline, self.over).map_err(|error| in_words(&error))?;
        let peer = PeerKey::Exactly(self.pass.peer_key);
        let channel = tls_connect(stream, &self.pass.identity, peer, deadline, self.over)
            .map_err(|error| format!("{host} port {port}: {}", in_words(&error)))?;
        let mut lane = self.lane(channel).map_err(|error| in_words(&error))?;
        let hello = Message::LaneHello { token: self.pass.token, number };
        lane.reader.set_timeout(Some(deadline.saturating_duration_since(clock::instant())));
        let greeted = write_message(&mut lane.writer, &hello).map_err(crate::sync::SyncError::from_link);
        match greeted.and_then(|()| read_message(&mut lane.reader)) {
            Ok(Message::LaneWelcome) => {
                lane.reader.set_timeout(None);
                // Only now does the other end count on it: a welcome that came too late leaves no lane behind.
                write_message(&mut lane.writer, &Message::LaneWelcome).map_err(|error| in_words(&error))?;
                Ok(lane)
            }
            Ok(_) => Err(format!("{host} port {port}: the lane was not accepted")),
            Err(error) => Err(format!("{host} port {port}: {}", in_words(&error))),
        }
    }

    fn lane(&self, channel: TlsChannel) -> std::io::Result<Lane> {
        // The kernel also counts the time in which a peer takes nothing because its disk is slow, so this is no more
        // than a last resort: a dead peer is found by the heartbeats of the control lane.
        let least = limits::ms(limits::LANE_PATH_TIMEOUT_MS);
        channel
            .set_path_timeout(Some(self.timeout.map_or(2 * least, |timeout| timeout.saturating_mul(4).max(least))))?;
        let (reader, writer) = channel.into_link(Arc::clone(self.cut))?;
        Ok(Lane { reader, writer })
    }

    /// Accepts lanes until all are there, nobody wants them any more, or the deadline passes. Their number.
    pub(super) fn listen(
        &self,
        listener: &LaneListener,
        deadline: Instant,
        is_closed: &(dyn Fn() -> bool + Sync),
    ) -> usize {
        let next = |until| match listener.accept(until, self.over) {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(TcpError::TimedOut { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        self.take(&next, true, deadline, is_closed)
    }

    /// As [`Opening::listen`], of connections that `next` brings, or none until a deadline. `has_preamble`: it was not
    /// read yet.
    pub(super) fn take(
        &self,
        next: &dyn Fn(Instant) -> Result<Option<TcpStream>, TcpError>,
        has_preamble: bool,
        deadline: Instant,
        is_closed: &(dyn Fn() -> bool + Sync),
    ) -> usize {
        let door = LaneDoor::new(self);
        std::thread::scope(|scope| {
            while !door.is_full() && !is_closed() && clock::instant() < deadline {
                let look = deadline.min(clock::after(ACCEPT_LOOK));
                match next(look) {
                    Ok(Some(stream)) => {
                        let door = &door;
                        // One that dribbles must not keep the others out.
                        if !door.enter() {
                            continue;
                        }
                        let work = move || {
                            let until = deadline.min(clock::after(limits::ms(limits::AUTHENTICATION_TIMEOUT_MS)));
                            door.admit(stream, has_preamble, until);
                            door.leave();
                        };
                        if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                            door.leave();
                        }
                    }
                    Ok(None) => {}
                    Err(_) => return,
                }
            }
        });
        door.opened()
    }
}

/// Connections that may be in their handshake at once: some more than lanes.
const ENTERING_MAX: usize = 2 * limits::LANES_MAX;

/// Takes connections as lanes: each has to own the key and show the token, with a number not shown before.
struct LaneDoor<'a> {
    opening: &'a Opening<'a>,
    shown: AtomicU64,
    opened: AtomicUsize,
    entering: Mutex<usize>,
}

impl<'a> LaneDoor<'a> {
    fn new(opening: &'a Opening<'a>) -> LaneDoor<'a> {
        LaneDoor { opening, shown: AtomicU64::new(0), opened: AtomicUsize::new(0), entering: Mutex::new(0) }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::Acquire)
    }

    fn is_full(&self) -> bool {
        self.opened() >= usize::from(lanes_max(self.opening.pass.lanes))
    }

    fn enter(&self) -> bool {
        let mut entering = self.entering.lock().unwrap_or_else(PoisonError::into_inner);
        *entering += 1;
        let has_room = *entering <= ENTERING_MAX;
        if !has_room {
            *entering -= 1;
        }
        has_room
    }

    fn leave(&self) {
        *self.entering.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }

    /// Whoever does not show all of it is sent away without a word. `has_preamble`: it was not read yet.
    fn admit(&self, stream: TcpStream, has_preamble: bool, deadline: Instant) {
        let opening = self.opening;
        if has_preamble {
            let mut first = [0; PREAMBLE_BYTES];
            let read = read_first(&stream, &mut first, deadline, opening.over);
            if read.is_err()
                || Preamble::decode(&first).and_then(|preamble| preamble.session) != Some(opening.pass.session)
            {
                return;
            }
        }
        let peer = PeerKey::Exactly(opening.pass.peer_key);
        let Ok(channel) = tls_accept(stream, &opening.pass.identity, peer, deadline, opening.over) else { return };
        let Ok(mut lane) = opening.lane(channel) else { return };
        lane.reader.set_timeout(Some(deadline.saturating_duration_since(clock::instant())));
        let Ok(Message::LaneHello { token, number }) = read_message(&mut lane.reader) else { return };
        if token != opening.pass.token || number >= lanes_max(opening.pass.lanes) {
            return;
        }
        let bit = 1u64 << number;
        if self.shown.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            return;
        }
        let welcomed = write_message(&mut lane.writer, &Message::LaneWelcome).is_ok();
        if welcomed && matches!(read_message(&mut lane.reader), Ok(Message::LaneWelcome)) {
            lane.reader.set_timeout(None);
            self.opened.fetch_add(1, Ordering::AcqRel);
            (opening.on_lane)(lane);
        }
    }
}

/// An error with its causes.
pub(in crate::sync::remote) fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
