//! Both ends far: the client starts them through its own shells and passes on what they say to each other. It brokers
//! their keys, so that content goes between them directly; where it cannot, that passes through here, too.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crossbeam_channel::Receiver as Inbox;

use super::lanes::{self, LaneDesk, LanePlan, Party};
use super::pump::{CutOnDrop, Line, read_message, write_all};
use super::{Ends, Far, connect, setup};
use crate::limits;
use crate::model::{Kind, PieceId, Stats};
use crate::monitor::{Counters, Phase};
use crate::net::{Address, LinkReader, ShellChild};
use crate::sync::clock::Stopwatch;
use crate::sync::receiver::IDLE_LOOK;
use crate::sync::session::Session;
use crate::sync::{Connect, SyncError};
use crate::wire::{FarRole, FlowError, LaneWord, Message, Transport};

/// One of the two far ends, as the client sees it.
struct End {
    line: Line,
    desk: LaneDesk,
}

/// What both readers have to do with.
struct Between<'a> {
    session: &'a Session,
    sender: End,
    receiver: End,
    state: Mutex<State>,
    changed: Condvar,
    watch: &'a Stopwatch,
}

#[derive(Default)]
struct State {
    totals: [Option<Stats>; 2],
    over: [bool; 2],
    /// The receiver was told what the sources are: before that it hears no words about lanes.
    has_sources: bool,
    /// Entries and bytes of pieces that are listed and not released.
    pieces: HashMap<PieceId, (u64, u64)>,
}

/// Which of the two is meant.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Sender,
    Receiver,
}

/// Runs a session between two far ends. The totals of both.
pub(super) fn run(
    session: &Arc<Session>,
    arguments: &[Vec<u8>],
    source: &Address,
    destination: &Address,
    how: &Connect,
    watch: &Stopwatch,
) -> Result<Stats, SyncError> {
    if session.options.remove_source_files {
        return Err(SyncError::usage(
            "--remove-source-files does not go with two remote ends, which could be one place: \
             run xfer on one of the hosts",
        ));
    }
    let setup_source = setup(session, FarRole::Sender, arguments.to_vec(), &[], source, how);
    let destination_path = vec![destination.path().to_vec()];
    let setup_destination = setup(session, FarRole::Receiver, destination_path, arguments, destination, how);
    let sender = connect(session, source, setup_source, how)?;
    let receiver = connect(session, destination, setup_destination, how)?;
    let Far { ends: sender_ends, child: sender_child, lanes: sender_lanes } = sender;
    let Far { ends: receiver_ends, child: receiver_child, lanes: receiver_lanes } = receiver;
    let (sender_line, sender_outgoing) = Line::new();
    let (receiver_line, receiver_outgoing) = Line::new();
    let (sender_desk, sender_words) = LaneDesk::new();
    let (receiver_desk, receiver_words) = LaneDesk::new();
    let between = Between {
        session,
        sender: End { line: sender_line, desk: sender_desk },
        receiver: End { line: receiver_line, desk: receiver_desk },
        state: Mutex::default(),
        changed: Condvar::new(),
        watch,
    };
    session.phase(Phase::Transferring);
    let broken = Mutex::new(None);
    std::thread::scope(|scope| {
        let Ends { reader: sender_reader, writer: sender_writer, cut: sender_cut } = sender_ends;
        let Ends { reader: receiver_reader, writer: receiver_writer, cut: receiver_cut } = receiver_ends;
        let _cuts = (CutOnDrop(sender_cut), CutOnDrop(receiver_cut));
        let (between, broken) = (&between, &broken);
        let note = move |side: Side, error: SyncError| {
            broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((side, error));
            between.over(side);
        };
        crate::sync::spawn(scope, session, move || {
            if let Err(error) = write_all(sender_writer, &sender_outgoing) {
                note(Side::Sender, SyncError::from_link(error));
            }
        });
        crate::sync::spawn(scope, session, move || {
            if let Err(error) = write_all(receiver_writer, &receiver_outgoing) {
                note(Side::Receiver, SyncError::from_link(error));
            }
        });
        for (side, reader) in [(Side::Sender, sender_reader), (Side::Receiver, receiver_reader)] {
            crate::sync::spawn(scope, session, move || match between.read(side, reader) {
                Ok(()) => between.over(side),
                Err(error) => note(side, error),
            });
        }
        // A daemon knows the key of its client only: through it everything passes.
        if let (LanePlan::Lead(sender), LanePlan::Lead(receiver)) = (sender_lanes, receiver_lanes)
            && sender.daemon_port.is_none()
            && receiver.daemon_port.is_none()
        {
            crate::sync::spawn(scope, session, move || {
                between.broker(*sender, &sender_words, *receiver, &receiver_words);
            });
        }
        between.wait();
        for end in [&between.sender, &between.receiver] {
            end.desk.close();
            end.line.close();
        }
        between.wait_until_over();
    });
    let State { totals, .. } = between.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    conclude(session, totals, broken, sender_child, receiver_child)
}

/// How it ended: what broke first explains it.
fn conclude(
    session: &Session,
    totals: [Option<Stats>; 2],
    broken: Option<(Side, SyncError)>,
    sender: Option<ShellChild>,
    receiver: Option<ShellChild>,
) -> Result<Stats, SyncError> {
    let (mut sender, mut receiver) = (sender, receiver);
    if let Some(error) = session.take_error() {
        return Err(error);
    }
    if let [Some(mut stats), Some(other)] = totals {
        // As the sender counts them: content may not have passed through here.
        session.count(|ours| (ours.sent_bytes, ours.received_bytes) = (stats.sent_bytes, stats.received_bytes));
        stats.merge(&other);
        for child in [&mut sender, &mut receiver].into_iter().flatten() {
            child.wait(limits::ms(limits::STOP_GRACE_MS));
        }
        return Ok(stats);
    }
    if session.stop.requested() {
        return Err(SyncError::Stopped);
    }
    let (side, error) = broken.unwrap_or((Side::Sender, SyncError::Link(crate::net::LinkError::Closed)));
    let child = if side == Side::Sender { &mut sender } else { &mut receiver };
    match (child, error) {
        (Some(child), SyncError::Link(error)) => Err(SyncError::from_shell(child.failure(error))),
        (_, error) => Err(error),
    }
}

impl Between<'_> {
    fn end(&self, side: Side) -> &End {
        if side == Side::Sender { &self.sender } else { &self.receiver }
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
        result
    }

    fn over(&self, side: Side) {
        self.state(|state| state.over[side as usize] = true);
    }

    /// Passes on what one end says. It waits for the other end's link only with content, which no end waits to be rid
    /// of before it reads on.
    fn read(&self, side: Side, mut reader: LinkReader) -> Result<(), SyncError> {
        let other = match side {
            Side::Sender => &self.receiver.line,
            Side::Receiver => &self.sender.line,
        };
        loop {
            let message = match read_message(&mut reader) {
                Ok(message) => message,
                Err(SyncError::Link(crate::net::LinkError::Closed))
                    if self.state(|state| state.totals[side as usize].is_some()) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            match message {
                Message::Data(payload) => {
                    let _session_is_over = other.data(payload);
                }
                Message::Event(event) => self.session.monitor.event(*event),
                Message::Items(items) => {
                    for item in items {
                        self.session.item(item);
                    }
                }
                Message::Lane(word) => self.end(side).desk.hear(word)?,
                Message::Fatal { text, hint, timed_out } => {
                    self.session.fail(SyncError::Far { text, hint, timed_out });
                    self.changed.notify_all();
                }
                Message::TreeDigest(digest) => {
                    let _first_counts = self.session.tree_digest.set(digest);
                }
                Message::Done(stats) => {
                    other.say(&Message::Done(stats.clone()));
                    self.state(|state| state.totals[side as usize] = Some(*stats));
                }
                Message::Setup(_) | Message::Ready { .. } | Message::Paths { .. } | Message::Modules(_) => {
                    return Err(FlowError::Unexpected { what: "message" }.into());
                }
                message => {
                    self.count(&message);
                    other.say(&message);
                    if matches!(message, Message::Sources { .. }) {
                        self.state(|state| state.has_sources = true);
                    }
                }
            }
        }
    }

    /// What passes through tells how far the work is.
    fn count(&self, message: &Message) {
        let counters = self.session.counters();
        match message {
            Message::Listing(piece) => {
                let files = piece.entries.iter().filter(|listed| listed.entry.metadata.kind == Kind::File);
                let bytes = files.map(|listed| listed.entry.metadata.size).sum();
                let entries = piece.entries.len() as u64;
                Counters::add(&counters.entries_listed, entries);
                Counters::add(&counters.bytes_listed, bytes);
                self.state(|state| state.pieces.insert(piece.id, (entries, bytes)));
            }
            Message::Release { piece, .. } => {
                if let Some((entries, bytes)) = self.state(|state| state.pieces.remove(piece)) {
                    Counters::add(&counters.entries_done, entries);
                    Counters::add(&counters.bytes_done, bytes);
                }
            }
            Message::ListingEnd(_) => self.session.listing_done(self.watch.elapsed_ms()),
            _ => {}
        }
    }

    /// Waits until both are done, one is gone, or the run is to end; then both get a while to end in order.
    fn wait(&self) {
        let mut stopping: Option<Stopwatch> = None;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.totals.iter().all(Option::is_some) || state.over.iter().any(|over| *over) {
                return;
            }
            if self.session.is_ending() {
                match &stopping {
                    None => {
                        for end in [&self.sender, &self.receiver] {
                            end.line.say(&Message::Stop);
                        }
                        stopping = Some(Stopwatch::start());
                    }
                    Some(watch) if watch.elapsed_ms() > limits::STOP_GRACE_MS => return,
                    Some(_) => {}
                }
            }
            state = self.changed.wait_timeout(state, IDLE_LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until both links have ended, not forever.
    fn wait_until_over(&self) {
        let watch = Stopwatch::start();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.over.iter().all(|over| *over) && watch.elapsed_ms() < limits::STOP_GRACE_MS {
            state = self.changed.wait_timeout(state, IDLE_LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Direct lanes between the two: the destination listens, or else the source.
    fn broker(
        &self,
        sender: lanes::Lead,
        sender_words: &Inbox<LaneWord>,
        receiver: lanes::Lead,
        receiver_words: &Inbox<LaneWord>,
    ) {
        let is_over = || self.sender.desk.is_over() || self.session.is_ending();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.has_sources {
            if is_over() || state.over.iter().any(|over| *over) {
                return;
            }
            state = self.changed.wait_timeout(state, IDLE_LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        let source = Party { line: &self.sender.line, words: sender_words, lead: &sender, is_over: &is_over };
        let destination =
            Party { line: &self.receiver.line, words: receiver_words, lead: &receiver, is_over: &is_over };
        let opened = lanes::broker(&destination, &source)
            .or_else(|there| lanes::broker(&source, &destination).map_err(|back| format!("{there}; and back: {back}")));
        let Err(reason) = opened else { return };
        if is_over() {
            return;
        }
        if sender.wish.transport == Transport::Direct {
            self.session.fail(SyncError::NoLanes { reason });
            self.changed.notify_all();
        } else {
            self.session.notice(format!(
                "no direct connection between the two hosts, everything passes through this one: {reason} \
                 (--lane-ports FROM-TO names ports to open in a firewall, --transport shell says that this is meant)"
            ));
        }
    }
}
