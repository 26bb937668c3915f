//! The receiver over a link: listings in, wants out, contents in.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use crossbeam_channel::{Receiver as Inbox, Sender as Outbox};

use super::delta_in::{self, Signing};
use super::lanes::{self, LaneDesk};
use super::open_file::{Hands, OpenFile, Settled};
use super::pump::{CutOnDrop, Line, read_data_frame, read_message, read_message_with, write_all};
use super::session_end::{self, SessionEnd};
use super::{Ends, Part};
use crate::delta;
use crate::limits;
use crate::model::{EarlySegments, Operation, PieceId, Stats};
use crate::monitor::{Counters, Phase};
use crate::net::LinkReader;
use crate::sync::SyncError;
use crate::sync::clock::Stopwatch;
use crate::sync::content::digest_file;
use crate::sync::held::HandleBudget;
use crate::sync::list::{self, Paths};
use crate::sync::receiver::{Arrived, DestinationRoot, FileTask, IDLE_LOOK, Owners, Receiver, Supply};
use crate::sync::session::Session;
use crate::wire::{DataRecord, FileKey, FlowError, ListingEnd, Message, ReceiverFlow, RecordReader, Want, WantMode};

/// Data frames of the control lane that wait for a worker.
const WAITING_FRAMES_MAX: usize = 8;

/// Files whose signatures are on their way at once, at most.
const SIGNING_THREADS: usize = super::feed::DELTA_THREADS;

/// The receiver's side of a session.
pub(super) struct Intake {
    pub(super) session: Arc<Session>,
    pub(super) line: Line,
    flow: Mutex<ReceiverFlow>,
    room: Condvar,
    /// Threads that wait for room to want more.
    waiting: AtomicUsize,
    open: Mutex<HashMap<FileKey, Arc<OpenFile>>>,
    batches: Mutex<HashMap<PieceId, Vec<Want>>>,
    signing: Mutex<Option<Outbox<Signing>>>,
    listing_end: OnceLock<ListingEnd>,
    desk: LaneDesk,
    /// Room for digests of segments that overtook others.
    pub(super) early_segments: Arc<EarlySegments>,
    end: SessionEnd,
}

/// Runs the receiver, at either end.
pub(super) fn run(mut part: Part<'_>, destination: &[u8], arguments: &[Vec<u8>]) -> Result<Stats, SyncError> {
    let (line, outgoing) = part.line();
    let prepared = prepare(part.session, &mut part.ends.reader, destination, arguments);
    let prepared = prepared.map_err(|error| part.give_up(error))?;
    let Part { session, ends, watch, relay, lanes: plan, throttle: _, traffic } = part;
    let super::Ends { reader, writer, cut } = ends;
    let (desk, words) = LaneDesk::new();
    let intake = Arc::new(Intake {
        session: Arc::clone(session),
        line: line.clone(),
        flow: Mutex::new(ReceiverFlow::new()),
        room: Condvar::new(),
        waiting: AtomicUsize::new(0),
        open: Mutex::default(),
        batches: Mutex::default(),
        signing: Mutex::default(),
        listing_end: OnceLock::new(),
        desk,
        early_segments: EarlySegments::new(limits::EARLY_SEGMENTS_SESSION_MAX),
        end: SessionEnd::default(),
    });
    let receiver = Receiver::new(
        Arc::clone(session),
        prepared.root,
        prepared.root_entry,
        Arc::clone(&intake) as Arc<dyn Supply>,
        Owners::new(&session.options, true),
        &prepared.budget,
    );
    let (signing, signing_inbox) = crossbeam_channel::unbounded();
    *intake.signing.lock().unwrap_or_else(PoisonError::into_inner) = Some(signing);
    let (frames, frame_inbox) = crossbeam_channel::bounded(WAITING_FRAMES_MAX);
    session.phase(Phase::Transferring);
    let peer = std::thread::scope(|scope| {
        let lane_cut = Arc::clone(&cut);
        let cut = CutOnDrop(cut);
        let (intake, receiver) = (&intake, &receiver);
        crate::sync::spawn(scope, session, move || {
            if let Err(error) = write_all(writer, &outgoing) {
                intake.link_failed(SyncError::from_link(error));
            }
        });
        crate::sync::spawn(scope, session, move || intake.read(reader, receiver, &frames, watch));
        for _ in 0..crate::sync::threads() {
            let inbox = frame_inbox.clone();
            crate::sync::spawn(scope, session, move || intake.take_data(receiver, &inbox));
            crate::sync::spawn(scope, session, move || receiver.work());
        }
        drop(frame_inbox);
        let keeper = lanes::Keeper { session, line: line.clone(), words, over: intake.desk.over(), cut: lane_cut };
        crate::sync::spawn(scope, session, move || {
            keeper.run(plan, &|lane| {
                traffic.add_sent(lane.writer.byte_counter());
                traffic.add_received(lane.reader.byte_counter());
                crate::sync::spawn(scope, session, move || {
                    let _writer = lane.writer;
                    intake.take_lane(lane.reader, receiver);
                });
            });
        });
        for _ in 0..SIGNING_THREADS {
            let inbox = signing_inbox.clone();
            crate::sync::spawn(scope, session, move || delta_in::sign_all(intake, &inbox));
        }
        receiver.wait_until_finished();
        intake.desk.close();
        intake.wait_for_listing_end();
        let concluded = match intake.listing_end.get() {
            Some(end) if !session.is_ending() => receiver.conclude(end),
            _ => {
                receiver.abandon();
                Ok(())
            }
        };
        if let Err(error) = concluded {
            session.fail(error);
        }
        intake.put_all_aside(receiver);
        intake.signing.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut peer = None;
        if let Some(relay) = relay {
            if let Some(error) = session.take_error() {
                line.say(&error.for_peer());
                // Whoever serves this session hears it too.
                session.fail(error);
            }
            relay.detach();
        } else if session.is_ending() {
            line.say(&Message::Stop);
        }
        traffic.note(session);
        line.say(&Message::Done(Box::new(session.stats())));
        if !session.has_failed() {
            peer = intake.end.wait(session, &line, false);
        }
        intake.room.notify_all();
        line.close();
        intake.end.wait_link_over(limits::STOP_GRACE_MS);
        cut.0.store(true, std::sync::atomic::Ordering::Release);
        peer
    });
    session_end::outcome(session, peer)
}

struct Prepared {
    root: DestinationRoot,
    root_entry: Option<crate::model::ListedEntry>,
    budget: Arc<HandleBudget>,
}

/// What comes before the first listing: what the sources are decides what the destination's name means.
fn prepare(
    session: &Session,
    reader: &mut LinkReader,
    destination: &[u8],
    arguments: &[Vec<u8>],
) -> Result<Prepared, SyncError> {
    let (single, root_entry) = sources_message(session, reader)?;
    let root = DestinationRoot::open(destination, single.as_ref(), session)?;
    root.warn_of_nesting(arguments, session);
    Ok(Prepared {
        root,
        root_entry: root_entry.map(|root| *root),
        budget: HandleBudget::new(crate::sync::handles_max()),
    })
}

pub(super) type SourcesMessage = (Option<crate::model::Name>, Option<Box<crate::model::ListedEntry>>);

pub(super) fn sources_message(session: &Session, reader: &mut LinkReader) -> Result<SourcesMessage, SyncError> {
    loop {
        match read_message(reader)? {
            Message::Sources { single, root } => return Ok((single, root)),
            Message::Event(event) => session.monitor.event(*event),
            Message::Fatal { text, hint, timed_out } => return Err(SyncError::Far { text, hint, timed_out }),
            Message::Stop => return Err(SyncError::Stopped),
            _ => return Err(FlowError::Unexpected { what: "message" }.into()),
        }
    }
}

/// Lists the far sources.
pub(super) fn list(part: Part<'_>) -> Result<Stats, SyncError> {
    let Part { session, ends: Ends { mut reader, mut writer, .. }, watch, .. } = part;
    let (_, root) = sources_message(session, &mut reader)?;
    if let Some(root) = root {
        list::tell_root(&root, session);
    }
    session.phase(Phase::Transferring);
    let mut flow = ReceiverFlow::new();
    let paths = Paths::default();
    loop {
        match read_message(&mut reader)? {
            Message::Listing(piece) => {
                flow.on_piece(&piece)?;
                paths.tell(&piece, session);
                flow.release(piece.id);
                let release = Message::Release { piece: piece.id, safe: Vec::new() };
                super::pump::write_message(&mut writer, &release).map_err(SyncError::from_link)?;
            }
            Message::ListingEnd(_) => {
                flow.on_listing_end()?;
                session.listing_done(watch.elapsed_ms());
                let done = Message::Done(Box::new(session.stats()));
                super::pump::write_message(&mut writer, &done).map_err(SyncError::from_link)?;
            }
            Message::Owners { .. } => {}
            Message::Event(event) => session.monitor.event(*event),
            Message::Done(stats) => return Ok(*stats),
            Message::Fatal { text, hint, timed_out } => return Err(SyncError::Far { text, hint, timed_out }),
            _ => return Err(FlowError::Unexpected { what: "message" }.into()),
        }
        if session.stop.requested() {
            return Err(SyncError::Stopped);
        }
    }
}

/// Counts a thread that waits for room.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Waits<'a> {
        waiting.fetch_add(1, Ordering::AcqRel);
        Waits(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Intake {
    fn flow<T>(&self, step: impl FnOnce(&mut ReceiverFlow) -> T) -> T {
        step(&mut self.flow.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn link_failed(&self, error: SyncError) {
        if !matches!(error, SyncError::Stopped) {
            self.session.fail(error);
        }
        self.end.link_over();
        self.room.notify_all();
    }

    /// The last piece can be settled before the word comes that it was the last.
    fn wait_for_listing_end(&self) {
        let mut flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        while self.listing_end.get().is_none() && !self.session.is_ending() {
            flow = self
                .room
                .wait_timeout(flow, IDLE_LOOK)
                .map(|(flow, _)| flow)
                .unwrap_or_else(|poisoned| poisoned.into_inner().0);
        }
    }

    /// Reads messages until the link ends. Waits only for the disks.
    fn read(&self, mut reader: LinkReader, receiver: &Arc<Receiver>, frames: &Outbox<Vec<u8>>, watch: &Stopwatch) {
        loop {
            let message = match read_message_with(&mut reader, &self.line.buffers) {
                Ok(message) => message,
                Err(SyncError::Link(crate::net::LinkError::Closed)) if self.end.is_done() => {
                    return self.end.link_over();
                }
                Err(error) => return self.link_failed(error),
            };
            let result = match message {
                Message::Data(payload) => {
                    // Fails only when the workers are gone, which is the end of the session.
                    let _session_is_over = frames.send(payload);
                    Ok(())
                }
                message => self.on_message(message, receiver, watch),
            };
            if let Err(error) = result {
                return self.link_failed(error);
            }
        }
    }

    fn on_message(&self, message: Message, receiver: &Arc<Receiver>, watch: &Stopwatch) -> Result<(), SyncError> {
        match message {
            Message::Listing(piece) => {
                self.flow(|flow| flow.on_piece(&piece))?;
                let counters = self.session.counters();
                Counters::add(&counters.entries_listed, piece.entries.len() as u64);
                let files = piece.entries.iter().filter(|l| l.entry.metadata.kind == crate::model::Kind::File);
                Counters::add(&counters.bytes_listed, files.map(|listed| listed.entry.metadata.size).sum());
                receiver.arrive(Arrived::Remote(*piece));
            }
            Message::Owners { users, groups } => receiver.owners.learn(users, groups),
            Message::ListingEnd(end) => {
                self.flow(ReceiverFlow::on_listing_end)?;
                self.session.listing_done(watch.elapsed_ms());
                if self.listing_end.set(end).is_err() {
                    return Err(FlowError::Twice { what: "end of listings", number: 0 }.into());
                }
                let _flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
                self.room.notify_all();
            }
            Message::Items(items) => {
                for item in items {
                    self.session.item(item);
                }
            }
            Message::Event(event) => self.session.monitor.event(*event),
            Message::Lane(word) => self.desk.hear(word)?,
            Message::Done(stats) => self.end.peer_done(*stats),
            Message::Stop => {
                self.session.stop.request();
                self.room.notify_all();
            }
            Message::Fatal { text, hint, timed_out } => return Err(SyncError::Far { text, hint, timed_out }),
            _ => return Err(FlowError::Unexpected { what: "message" }.into()),
        }
        Ok(())
    }

    /// Takes contents from a data lane until the session is over.
    fn take_lane(&self, mut reader: LinkReader, receiver: &Arc<Receiver>) {
        DATA_THREAD.with(|flag| flag.set(true));
        let mut hands = Hands::default();
        let mut payload = Vec::new();
        loop {
            let result = match read_data_frame(&mut reader, &mut payload) {
                Ok(()) if self.session.is_ending() => continue,
                Ok(()) => self.on_frame(receiver, &payload, &mut hands),
                Err(SyncError::Link(crate::net::LinkError::Closed)) if self.desk.is_over() => return,
                Err(SyncError::Stopped) => return,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                if !self.session.is_ending() && !self.end.is_done() {
                    self.session.fail(error);
                }
                return self.room.notify_all();
            }
        }
    }

    /// Takes contents from frames of the control lane until the session is over.
    fn take_data(&self, receiver: &Arc<Receiver>, inbox: &Inbox<Vec<u8>>) {
        DATA_THREAD.with(|flag| flag.set(true));
        let mut hands = Hands::default();
        while let Ok(payload) = inbox.recv() {
            if self.session.is_ending() {
                continue;
            }
            if let Err(error) = self.on_frame(receiver, &payload, &mut hands) {
                self.session.fail(error);
                self.room.notify_all();
            }
            self.line.buffers.give(payload);
        }
    }

    fn on_frame(&self, receiver: &Arc<Receiver>, payload: &[u8], hands: &mut Hands) -> Result<(), SyncError> {
        let mut records = RecordReader::new(payload);
        while let Some((key, record)) = records.next()? {
            self.on_record(receiver, key, &record, hands)?;
        }
        Ok(())
    }

    fn on_record(
        &self,
        receiver: &Arc<Receiver>,
        key: FileKey,
        record: &DataRecord<'_>,
        hands: &mut Hands,
    ) -> Result<(), SyncError> {
        match record.settles() {
            Some(segments) => {
                // Before it counts: the thread that works on the last segment takes it from there.
                if segments > 0
                    && let Some(file) = self.open_file(key)
                {
                    file.keep_end(key, record);
                }
                if self.flow(|flow| flow.on_record(key, record))? {
                    self.settle(receiver, key, record, hands);
                }
            }
            None => {
                self.flow(|flow| flow.on_record(key, record))?;
                let Some(file) = self.open_file(key) else { return Ok(()) };
                file.on_segment(self, receiver, record, hands);
                if !matches!(record, DataRecord::Begin { .. }) && self.flow(|flow| flow.segment_done(key)) {
                    let encoded = file.take_end().unwrap_or_default();
                    if let Some((_, end)) = RecordReader::new(&encoded).next()? {
                        self.settle(receiver, key, &end, hands);
                    }
                }
            }
        }
        Ok(())
    }

    fn open_file(&self, key: FileKey) -> Option<Arc<OpenFile>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// The whole answer is there.
    fn settle(&self, receiver: &Arc<Receiver>, key: FileKey, record: &DataRecord<'_>, hands: &mut Hands) {
        let file = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        // Whoever waits for room is woken for much of it at once: waking costs more than what one want asks for.
        if self.waiting.load(Ordering::Acquire) > 0 && self.flow(|flow| flow.has_ample_room()) {
            self.room.notify_all();
        }
        if let Some(file) = file
            && file.on_end(self, receiver, record, hands) == Settled::Again
        {
            self.ask(receiver, key, file, WantMode::Whole);
        }
    }

    /// Wants a file. `fetch` and repairs end here.
    fn ask(&self, receiver: &Arc<Receiver>, key: FileKey, file: Arc<OpenFile>, mode: WantMode) {
        let bytes = file.task.size();
        let mut flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        if !DATA_THREAD.with(std::cell::Cell::get) && !flow.may_want(bytes) {
            drop(flow);
            // What was gathered must leave, or its answers never make room.
            let gathered: Vec<PieceId> =
                self.batches.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
            for piece in gathered {
                self.flush(receiver, piece);
            }
            flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
            let _waits = Waits::new(&self.waiting);
            while !flow.may_want(bytes) {
                if self.session.is_ending() {
                    return;
                }
                flow = self
                    .room
                    .wait_timeout(flow, IDLE_LOOK)
                    .map(|(flow, _)| flow)
                    .unwrap_or_else(|poisoned| poisoned.into_inner().0);
            }
        }
        // Before the book knows of it: what comes for it then finds it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&file));
        flow.want(key, &mode, bytes);
        drop(flow);
        let is_delta = matches!(mode, WantMode::Delta { .. });
        let want = Want { index: key.index, mode };
        if is_delta {
            // Wants and signing in one order: the two ends' threads take them up side by side.
            let signing = self.signing.lock().unwrap_or_else(PoisonError::into_inner);
            self.line.say(&Message::Wants { piece: key.piece, wants: vec![want] });
            if let Some(signing) = &*signing {
                let _session_is_over = signing.send(Signing { key, file });
            }
        } else if DATA_THREAD.with(std::cell::Cell::get) {
            self.line.say(&Message::Wants { piece: key.piece, wants: vec![want] });
        } else {
            let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
            batches.entry(key.piece).or_default().push(want);
        }
    }

    /// How a file is best asked for, given what is here.
    fn choose(&self, receiver: &Receiver, task: &FileTask) -> io::Result<(WantMode, Option<std::fs::File>)> {
        let options = &self.session.options;
        let size = task.size();
        let open_basis = || task.open_checked();
        if task.check {
            let basis = open_basis()?;
            let digest = digest_file(&basis, size, &self.session.stop)?;
            return Ok(match digest {
                Some(_) if options.dry_run => (WantMode::Digest, Some(basis)),
                Some(digest) => (WantMode::IfDiffers(digest), Some(basis)),
                None => (WantMode::Whole, None),
            });
        }
        let whole = options.whole_file == Some(true);
        let partial = receiver.open_partial(task);
        if partial.is_none() && (whole || task.basis().is_none()) {
            return Ok((WantMode::Whole, None));
        }
        let basis = match partial {
            Some(partial) => partial,
            None => match open_basis() {
                Ok(basis) => basis,
                // Unreadable to us, or gone: not a reason not to replace it.
                Err(_) => return Ok((WantMode::Whole, None)),
            },
        };
        let basis_bytes = crate::fs::metadata_of(&basis)?.size;
        let digest = match basis_bytes == size && !task.apart {
            true => digest_file(&basis, size, &self.session.stop)?,
            false => None,
        };
        if size <= limits::SMALL_FILE_BYTES_MAX || basis_bytes < limits::SMALL_FILE_BYTES_MAX {
            return Ok(match digest {
                Some(digest) => (WantMode::IfDiffers(digest), Some(basis)),
                None => (WantMode::Whole, None),
            });
        }
        let mode = WantMode::Delta {
            basis_bytes,
            block_bytes: delta::block_bytes_for(basis_bytes),
            digest,
            same_offset_only: options.inplace,
        };
        Ok((mode, Some(basis)))
    }

    /// The run ends early: parts of files are kept where that was asked for.
    fn put_all_aside(&self, receiver: &Arc<Receiver>) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for file in open.into_values() {
            file.put_aside(receiver);
        }
    }
}

thread_local! {
    /// Set on threads that take data. They make room, so they must not wait for it.
    static DATA_THREAD: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Supply for Intake {
    fn fetch(&self, receiver: &Arc<Receiver>, task: FileTask) {
        let key = task.key();
        match self.choose(receiver, &task) {
            Ok((mode, basis)) => {
                let file = Arc::new(OpenFile::new(task, &mode, basis));
                self.ask(receiver, key, file, mode);
            }
            Err(_) if self.session.is_ending() => {}
            Err(error) => receiver.fail_file(&task, Operation::Digest, &error),
        }
    }

    fn flush(&self, _receiver: &Arc<Receiver>, piece: PieceId) {
        let wants = self.batches.lock().unwrap_or_else(PoisonError::into_inner).remove(&piece);
        if let Some(mut wants) = wants.filter(|wants| !wants.is_empty()) {
            wants.sort_unstable_by_key(|want| want.index);
            self.line.say(&Message::Wants { piece, wants });
        }
    }

    fn release(&self, arrived: &Arrived, safe: Vec<u16>) {
        let piece = arrived.piece().id;
        self.flow(|flow| flow.release(piece));
        let safe = if self.session.options.remove_source_files { safe } else { Vec::new() };
        self.line.say(&Message::Release { piece, safe });
    }
}
