//! The sender over a link: listings out, wants in, contents out.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crossbeam_channel::{Receiver as Inbox, Sender as Outbox};

use super::Part;
use super::answer::Work;
use super::lanes::{self, LaneDesk};
use super::pump::{CutOnDrop, Line, read_message, write_all};
use super::session_end::{self, SessionEnd};
use super::spread::Spread;
use crate::fs;
use crate::limits;
use crate::model::{Kind, ListedEntry, PieceId, Stats};
use crate::monitor::{Counters, Phase};
use crate::net::LinkReader;
use crate::sync::SyncError;
use crate::sync::held::HandleBudget;
use crate::sync::sender::remove_sources;
use crate::sync::sender::sources::Sources;
use crate::sync::sender::walk::{PieceSink, SentPiece, Walk};
use crate::sync::session::Session;
use crate::wire::{FileKey, FlowError, Message, Transport, Want, WantMode};

/// Wants that one worker takes at a time: enough to share a frame, few enough to keep all workers busy.
const WANTS_PER_JOB_MAX: usize = 64;

/// Threads that answer delta wants: each waits for signatures now and then.
pub(super) const DELTA_THREADS: usize = 2;

/// Files of one piece that are wanted.
pub(super) struct Job {
    pub(super) piece: Arc<SentPiece>,
    pub(super) wants: Vec<Want>,
}

/// The sender's side of a session.
pub(super) struct Feed {
    pub(super) session: Arc<Session>,
    pub(super) line: Line,
    pub(super) walk: OnceLock<Weak<Walk>>,
    pieces: Mutex<HashMap<PieceId, Arc<SentPiece>>>,
    told: Mutex<(HashSet<u32>, HashSet<u32>)>,
    /// Where signatures of wanted files go, and where their answers take them from.
    pub(super) deltas: Mutex<HashMap<FileKey, Outbox<Vec<u8>>>>,
    pub(super) signatures: Mutex<HashMap<FileKey, Inbox<Vec<u8>>>>,
    /// Where lanes are asked to help with a big file.
    pub(super) spreads: Outbox<Arc<Spread>>,
    /// Data lanes that are in use.
    lanes: AtomicUsize,
    /// Those of them that answer wants against a basis, or may at once.
    pub(super) delta_lanes: AtomicUsize,
    /// Dropped when they take over.
    control_only: Mutex<Option<Outbox<()>>>,
    desk: LaneDesk,
    end: SessionEnd,
    is_client: bool,
}

impl PieceSink for Feed {
    fn piece(&self, sent: Arc<SentPiece>) {
        self.tell_owners(sent.piece.entries.iter());
        // Kept before it leaves: the answer may be faster.
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).insert(sent.piece.id, Arc::clone(&sent));
        self.line.listing(&sent.piece);
    }
}

/// Runs the sender, at either end.
pub(super) fn run(part: Part<'_>, arguments: &[Vec<u8>]) -> Result<Stats, SyncError> {
    let (line, outgoing) = part.line();
    let Part { session, ends, watch, relay, lanes: plan, throttle, traffic } = part;
    let budget = HandleBudget::new(crate::sync::handles_max());
    let sources = Sources::resolve(arguments, session, &budget);
    // As many as there could be helpers, and a few: who finds no room goes on alone.
    let (spreads, spread_inbox) = crossbeam_channel::bounded(2 * limits::LANES_MAX);
    let (control_only, control_only_inbox) = crossbeam_channel::bounded(0);
    let (desk, words) = LaneDesk::new();
    let feed = Arc::new(Feed {
        session: Arc::clone(session),
        line: line.clone(),
        walk: OnceLock::new(),
        pieces: Mutex::default(),
        told: Mutex::default(),
        deltas: Mutex::default(),
        signatures: Mutex::default(),
        spreads,
        lanes: AtomicUsize::new(0),
        delta_lanes: AtomicUsize::new(0),
        control_only: Mutex::new(Some(control_only)),
        desk,
        end: SessionEnd::default(),
        is_client: relay.is_none(),
    });
    let walk = Arc::new(Walk::over_link(Arc::clone(session), Arc::clone(&feed) as Arc<dyn PieceSink>));
    let _attached_once = feed.walk.set(Arc::downgrade(&walk));
    let (jobs, job_inbox) = crossbeam_channel::unbounded();
    let (deltas, delta_inbox) = crossbeam_channel::unbounded();
    let work = Work { jobs: job_inbox, deltas: delta_inbox, spreads: spread_inbox, control_only: control_only_inbox };
    let ends_cut = Arc::clone(&ends.cut);
    session.phase(Phase::Transferring);
    let peer = std::thread::scope(|scope| {
        // Declared first, dropped last: whatever happens below, no thread stays on the link.
        let cut = CutOnDrop(ends_cut);
        let (feed, walk, work) = (&feed, &walk, &work);
        let super::Ends { reader, writer, cut: lane_cut } = ends;
        crate::sync::spawn(scope, session, move || {
            if let Err(error) = write_all(writer, &outgoing) {
                feed.link_failed(SyncError::from_link(error));
            }
        });
        crate::sync::spawn(scope, session, move || feed.read(reader, jobs, deltas, walk));
        if plan.transport() != Transport::Direct {
            for _ in 0..crate::sync::threads() {
                crate::sync::spawn(scope, session, move || feed.work(work));
            }
            for _ in 0..DELTA_THREADS {
                crate::sync::spawn(scope, session, move || feed.work_deltas(work));
            }
        }
        let root = sources.root_entry(session).map(Box::new);
        let root_owners: Vec<ListedEntry> = root.iter().map(|root| (**root).clone()).collect();
        line.say(&Message::Sources { single: sources.single.clone(), root });
        // Words about lanes come after the sources: the receiver opens its destination before it hears them.
        let keeper = lanes::Keeper { session, line: line.clone(), words, over: feed.desk.over(), cut: lane_cut };
        crate::sync::spawn(scope, session, move || {
            keeper.run(plan, &|lane| {
                let work = work.clone();
                let mut writer = lane.writer;
                writer.set_throttle(Arc::clone(throttle));
                traffic.add_sent(writer.byte_counter());
                traffic.add_received(lane.reader.byte_counter());
                feed.take_lane();
                crate::sync::spawn(scope, session, move || {
                    // Kept open for as long as we write, and never read: data lanes carry data one way.
                    let _reader = lane.reader;
                    feed.work_lane(writer, &work);
                });
            });
        });
        feed.tell_owners(root_owners.iter());
        let end = walk.run(&sources, crate::sync::threads());
        session.listing_done(watch.elapsed_ms());
        if !session.is_ending() {
            line.say(&Message::ListingEnd(end));
        }
        let peer = feed.end.wait(session, &line, feed.is_client);
        feed.desk.close();
        if let Some(relay) = relay {
            if let Some(error) = session.take_error() {
                line.say(&error.for_peer());
                // Whoever serves this session hears it too.
                session.fail(error);
            }
            relay.detach();
        }
        walk.close_sink();
        traffic.note(session);
        line.say(&Message::Done(Box::new(session.stats())));
        line.close();
        feed.linger(&cut);
        peer
    });
    session_end::outcome(session, peer)
}

impl Feed {
    fn link_failed(&self, error: SyncError) {
        if !matches!(error, SyncError::Stopped) {
            self.session.fail(error);
        }
        self.end.link_over();
        self.wake_walk();
    }

    /// A data lane broke: what it carried is not answered any more, so the session cannot end well.
    pub(super) fn lane_failed(&self, error: SyncError) {
        if !matches!(error, SyncError::Stopped) && !self.end.is_done() {
            self.session.fail(error);
        }
        self.end.wake();
        self.wake_walk();
    }

    fn wake_walk(&self) {
        if let Some(walk) = self.walk.get().and_then(Weak::upgrade) {
            walk.wake();
        }
    }

    /// One data lane more; the first takes the control lane's threads off content.
    fn take_lane(&self) {
        self.lanes.fetch_add(1, Ordering::AcqRel);
        self.control_only.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn has_lanes(&self) -> bool {
        self.lanes() > 0
    }

    pub(super) fn lanes(&self) -> usize {
        self.lanes.load(Ordering::Acquire)
    }

    /// Waits until the peer has closed its side, so that its last words are read; not forever.
    fn linger(&self, cut: &CutOnDrop) {
        self.end.wait_link_over(limits::STOP_GRACE_MS);
        cut.0.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Reads messages until the link ends. Never waits for anything but the link.
    fn read(&self, mut reader: LinkReader, jobs: Outbox<Job>, deltas: Outbox<Job>, walk: &Walk) {
        loop {
            let message = match read_message(&mut reader) {
                Ok(message) => message,
                Err(SyncError::Link(crate::net::LinkError::Closed)) if self.end.is_done() => {
                    return self.end.link_over();
                }
                Err(error) => return self.link_failed(error),
            };
            if let Err(error) = self.on_message(message, &jobs, &deltas, walk) {
                return self.link_failed(error);
            }
        }
    }

    fn on_message(
        &self,
        message: Message,
        jobs: &Outbox<Job>,
        deltas: &Outbox<Job>,
        walk: &Walk,
    ) -> Result<(), SyncError> {
        match message {
            Message::Wants { piece, wants } => {
                walk.flow(|flow| flow.on_wants(piece, &wants))?;
                let sent = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).get(&piece).cloned();
                let sent = sent.ok_or(FlowError::NotOpen { what: "piece", number: piece.0 })?;
                self.queue(&sent, wants, jobs, deltas);
            }
            Message::Signature { key, bytes, .. } => {
                let deltas = self.deltas.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(outbox) = deltas.get(&key) {
                    // Full only when the receiver sends further ahead than it may.
                    if let Err(crossbeam_channel::TrySendError::Full(_)) = outbox.try_send(bytes) {
                        return Err(FlowError::Excess { what: "signatures" }.into());
                    }
                }
            }
            Message::Release { piece, safe } => {
                let sent = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).remove(&piece);
                if let Some(sent) = sent {
                    self.released(&sent, &safe);
                }
                walk.flow(|flow| flow.on_release(piece))?;
            }
            Message::Items(items) => {
                for item in items {
                    self.session.item(item);
                }
            }
            Message::Event(event) => self.session.monitor.event(*event),
            Message::TreeDigest(digest) if self.session.verify.is_some() => {
                let _first_counts = self.session.tree_digest.set(digest);
            }
            Message::Done(stats) => {
                self.end.peer_done(*stats);
                walk.wake();
            }
            Message::Lane(word) => self.desk.hear(word)?,
            Message::Stop => {
                self.session.stop.request();
                walk.wake();
                self.end.wake();
            }
            Message::Fatal { text, hint, timed_out } => return Err(SyncError::Far { text, hint, timed_out }),
            _ => return Err(FlowError::Unexpected { what: "message" }.into()),
        }
        Ok(())
    }

    /// Hands wants to the workers, in portions; those against a basis to threads of their own.
    fn queue(&self, sent: &Arc<SentPiece>, wants: Vec<Want>, jobs: &Outbox<Job>, deltas: &Outbox<Job>) {
        let mut portion = Vec::new();
        let mut bytes = 0;
        for want in wants {
            if matches!(want.mode, WantMode::Delta { .. }) {
                let key = FileKey { piece: sent.piece.id, index: want.index };
                super::delta_out::open(self, key);
                let _session_is_over = deltas.send(Job { piece: Arc::clone(sent), wants: vec![want] });
                continue;
            }
            bytes += sent.piece.entries[usize::from(want.index)].entry.metadata.size;
            portion.push(want);
            if portion.len() >= WANTS_PER_JOB_MAX || bytes >= limits::FRAME_BYTES_MAX as u64 {
                let _session_is_over = jobs.send(Job { piece: Arc::clone(sent), wants: std::mem::take(&mut portion) });
                bytes = 0;
            }
        }
        if !portion.is_empty() {
            let _session_is_over = jobs.send(Job { piece: Arc::clone(sent), wants: portion });
        }
    }

    fn released(&self, sent: &SentPiece, safe: &[u16]) {
        if self.session.options.remove_source_files {
            remove_sources(&self.session, sent, safe);
        }
        if self.is_client {
            let counters = self.session.counters();
            let files = sent.piece.entries.iter().filter(|listed| listed.entry.metadata.kind == Kind::File);
            Counters::add(&counters.entries_done, sent.piece.entries.len() as u64);
            Counters::add(&counters.bytes_done, files.map(|listed| listed.entry.metadata.size).sum());
        }
    }

    /// Names of owners that the receiver has not heard of yet. Ids mean nothing on another machine.
    fn tell_owners<'a>(&self, entries: impl Iterator<Item = &'a ListedEntry>) {
        if self.session.options.numeric_ids {
            return;
        }
        let preserve = &self.session.options.preserve;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        for listed in entries {
            let entry = &listed.entry;
            let mut user = |id: u32| {
                if told.0.insert(id)
                    && let Some(name) = fs::user_name(id)
                {
                    users.push((id, name));
                }
            };
            if preserve.owner {
                user(entry.metadata.uid);
            }
            let acls = entry.acls.iter().flat_map(|acls| [&acls.access, &acls.default]).flatten();
            let tags: Vec<_> = acls.flat_map(|acl| acl.0.iter().map(|entry| entry.tag)).collect();
            for tag in &tags {
                if let crate::model::AclTag::User(id) = tag {
                    user(*id);
                }
            }
            let mut group = |id: u32| {
                if told.1.insert(id)
                    && let Some(name) = fs::group_name(id)
                {
                    groups.push((id, name));
                }
            };
            if preserve.group {
                group(entry.metadata.gid);
            }
            for tag in &tags {
                if let crate::model::AclTag::Group(id) = tag {
                    group(*id);
                }
            }
        }
        if !(users.is_empty() && groups.is_empty()) {
            self.line.say(&Message::Owners { users, groups });
        }
    }
}
