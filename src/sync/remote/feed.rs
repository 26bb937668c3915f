//! The sender over a link: listings out, wants in, contents out.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crossbeam_channel::{Receiver as Inbox, Sender as Outbox};

use super::pump::{CutOnDrop, Ends, Line, read_message, write_all};
use super::relay::Relay;
use super::session_end::{self, SessionEnd};
use crate::fs;
use crate::limits;
use crate::model::{
    ContentHasher, Digest, Kind, ListedEntry, Operation, PieceId, Problem, ProblemKind, SegmentDigests, Stats,
    segment_digest,
};
use crate::monitor::{Counters, Phase};
use crate::net::LinkReader;
use crate::sync::SyncError;
use crate::sync::clock::Stopwatch;
use crate::sync::content::{Compressor, DataMap, digest_file};
use crate::sync::held::HandleBudget;
use crate::sync::sender::read::SourceFile;
use crate::sync::sender::remove_sources;
use crate::sync::sender::sources::Sources;
use crate::sync::sender::walk::{PieceSink, SentPiece, Walk};
use crate::sync::session::Session;
use crate::wire::{DataRecord, Failure, FileKey, FlowError, Message, Want, WantMode};

/// Wants that one worker takes at a time: enough to share a frame, few enough to keep all workers busy.
const WANTS_PER_JOB_MAX: usize = 64;

/// Threads that answer delta wants: each waits for signatures now and then.
pub(super) const DELTA_THREADS: usize = 2;

/// Files of one piece that are wanted.
struct Job {
    piece: Arc<SentPiece>,
    wants: Vec<Want>,
}

/// The sender's side of a session.
pub(super) struct Feed {
    pub(super) session: Arc<Session>,
    line: Line,
    walk: OnceLock<Weak<Walk>>,
    pieces: Mutex<HashMap<PieceId, Arc<SentPiece>>>,
    told: Mutex<(HashSet<u32>, HashSet<u32>)>,
    /// Where signatures of wanted files go, and where their answers take them from.
    pub(super) deltas: Mutex<HashMap<FileKey, Outbox<Vec<u8>>>>,
    pub(super) signatures: Mutex<HashMap<FileKey, Inbox<Vec<u8>>>>,
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

/// Runs the sender at the client.
pub(super) fn run(
    session: &Arc<Session>,
    ends: Ends,
    arguments: &[Vec<u8>],
    is_client: bool,
    watch: &Stopwatch,
) -> Result<Stats, SyncError> {
    let (line, outgoing) = Line::new();
    drive(session, ends, arguments, line, outgoing, is_client, watch, None)
}

/// Runs the sender at the far end.
pub(super) fn serve(
    session: &Arc<Session>,
    ends: Ends,
    arguments: &[Vec<u8>],
    relay: &Arc<Relay>,
    watch: &Stopwatch,
) -> Result<(), SyncError> {
    let (line, outgoing) = Line::new();
    relay.attach(line.clone());
    drive(session, ends, arguments, line, outgoing, false, watch, Some(relay)).map(|_| ())
}

#[allow(clippy::too_many_arguments, reason = "what both ends share")]
fn drive(
    session: &Arc<Session>,
    ends: Ends,
    arguments: &[Vec<u8>],
    line: Line,
    outgoing: super::pump::Outgoing,
    is_client: bool,
    watch: &Stopwatch,
    relay: Option<&Arc<Relay>>,
) -> Result<Stats, SyncError> {
    let Ends { reader, writer, cut } = ends;
    let budget = HandleBudget::new(crate::sync::handles_max());
    let sources = Sources::resolve(arguments, session, &budget);
    let feed = Arc::new(Feed {
        session: Arc::clone(session),
        line: line.clone(),
        walk: OnceLock::new(),
        pieces: Mutex::default(),
        told: Mutex::default(),
        deltas: Mutex::default(),
        signatures: Mutex::default(),
        end: SessionEnd::default(),
        is_client,
    });
    let walk = Arc::new(Walk::new(Arc::clone(session), Arc::clone(&feed) as Arc<dyn PieceSink>));
    let _attached_once = feed.walk.set(Arc::downgrade(&walk));
    let (jobs, job_inbox) = crossbeam_channel::unbounded();
    let (deltas, delta_inbox) = crossbeam_channel::unbounded();
    session.phase(Phase::Transferring);
    let peer = std::thread::scope(|scope| {
        // Declared first, dropped last: whatever happens below, no thread stays on the link.
        let cut = CutOnDrop(cut);
        let (feed, walk) = (&feed, &walk);
        crate::sync::spawn(scope, session, move || {
            if let Err(error) = write_all(writer, &outgoing) {
                feed.link_failed(SyncError::from_link(error), walk);
            }
        });
        crate::sync::spawn(scope, session, move || feed.read(reader, jobs, deltas, walk));
        for _ in 0..crate::sync::threads() {
            let inbox = job_inbox.clone();
            crate::sync::spawn(scope, session, move || feed.work(&inbox));
        }
        for _ in 0..DELTA_THREADS {
            let inbox = delta_inbox.clone();
            crate::sync::spawn(scope, session, move || feed.work_deltas(&inbox));
        }
        let root = sources.root_entry(session).map(Box::new);
        let root_owners: Vec<ListedEntry> = root.iter().map(|root| (**root).clone()).collect();
        line.say(&Message::Sources { single: sources.single.clone(), root });
        feed.tell_owners(root_owners.iter());
        let end = walk.run(&sources, crate::sync::threads());
        session.listing_done(watch.elapsed_ms());
        if !session.is_ending() {
            line.say(&Message::ListingEnd(end));
        }
        let peer = feed.end.wait(session, &line, is_client);
        if let Some(relay) = relay {
            if let Some(error) = session.take_error() {
                line.say(&error.for_peer());
            }
            relay.detach();
        }
        walk.close_sink();
        line.say(&Message::Done(Box::new(session.stats())));
        line.close();
        feed.linger(&cut);
        peer
    });
    session_end::outcome(session, peer)
}

impl Feed {
    fn link_failed(&self, error: SyncError, walk: &Walk) {
        if !matches!(error, SyncError::Stopped) {
            self.session.fail(error);
        }
        self.end.link_over();
        walk.wake();
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
                Err(error) => return self.link_failed(error, walk),
            };
            if let Err(error) = self.on_message(message, &jobs, &deltas, walk) {
                return self.link_failed(error, walk);
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

    /// Answers wants until the session is over.
    fn work(&self, inbox: &Inbox<Job>) {
        let mut frame = OutFrame::new(self);
        loop {
            let job = match inbox.try_recv() {
                Ok(job) => job,
                Err(_) => {
                    frame.send();
                    match inbox.recv() {
                        Ok(job) => job,
                        Err(_) => return,
                    }
                }
            };
            for want in job.wants {
                if self.session.is_ending() {
                    break;
                }
                self.answer(&job.piece, &want, &mut frame);
            }
        }
    }

    fn work_deltas(&self, inbox: &Inbox<Job>) {
        let mut frame = OutFrame::new(self);
        while let Ok(job) = inbox.recv() {
            for want in job.wants {
                if !self.session.is_ending() {
                    self.answer(&job.piece, &want, &mut frame);
                    frame.send();
                }
            }
        }
    }

    /// Answers one want: the file is read again while it changes.
    fn answer(&self, sent: &Arc<SentPiece>, want: &Want, frame: &mut OutFrame<'_>) {
        let key = FileKey { piece: sent.piece.id, index: want.index };
        let index = usize::from(want.index);
        // Before anything leaves: what arrives wrong is wanted again at once.
        if let Some(walk) = self.walk.get().and_then(Weak::upgrade) {
            walk.flow(|flow| flow.answered(key));
        }
        self.session.counters().set_current(sent.piece.entries[index].entry.name.as_bytes());
        let mut answer = Err(Unsent::Changed);
        for attempt in 1..=limits::CHANGED_FILE_READS_MAX {
            if attempt > 1 {
                frame.send();
            }
            let opened = sent
                .dir(index)
                .and_then(|dir| SourceFile::open(&dir, &sent.piece.entries[index].entry.name, sent.followed(index)));
            let last = attempt == limits::CHANGED_FILE_READS_MAX;
            answer = match opened {
                Ok(source) => self.send_content(key, &source, &want.mode, frame, last),
                Err(error) => Err(Unsent::from_open(error)),
            };
            if !matches!(answer, Err(Unsent::Changed)) {
                break;
            }
        }
        self.deltas.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        self.signatures.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        if let Err(unsent) = answer {
            let (failure, kind, operation, error) = match unsent {
                Unsent::Ending => return,
                Unsent::Changed => (Failure::Changed, ProblemKind::Changed, Operation::Read, None),
                Unsent::Vanished(error) => (Failure::Vanished, ProblemKind::Vanished, Operation::Open, Some(error)),
                Unsent::Unreadable(operation, error) => {
                    (Failure::Unreadable, ProblemKind::Source, operation, Some(error))
                }
            };
            let errno = error.as_ref().and_then(io::Error::raw_os_error).unwrap_or(0);
            match error {
                Some(error) => self.session.io_problem(kind, operation, sent.shown(index), &error),
                None => {
                    let text = match self.session.verify {
                        Some(_) => "it kept changing, so it was not compared",
                        None => "it kept changing; the destination keeps what it had (--live takes it as it is)",
                    };
                    self.session.problem(Problem::new(kind, operation, sent.shown(index), text));
                }
            }
            frame.push(key, &DataRecord::Failed { failure, errno, text: b"" });
        }
    }

    fn send_content(
        &self,
        key: FileKey,
        source: &SourceFile,
        mode: &WantMode,
        frame: &mut OutFrame<'_>,
        last_attempt: bool,
    ) -> Result<(), Unsent> {
        let content = source.content();
        let known = match mode {
            WantMode::IfDiffers(digest) => Some(*digest),
            WantMode::Delta { digest, basis_bytes, .. } if *basis_bytes == content.size => *digest,
            WantMode::Digest => {
                let digest = self.digest(source)?;
                frame.push(key, &DataRecord::Digest { digest });
                return Ok(());
            }
            _ => None,
        };
        if content.size <= limits::SMALL_FILE_BYTES_MAX && !matches!(mode, WantMode::Delta { .. }) {
            return self.send_small(key, source, known, frame, last_attempt);
        }
        if let Some(known) = known
            && self.digest(source)? == known
        {
            frame.push(key, &DataRecord::Same { content });
            return Ok(());
        }
        if let WantMode::Delta { basis_bytes, block_bytes, same_offset_only, .. } = mode {
            let basis = super::delta_out::Basis {
                bytes: *basis_bytes,
                block_bytes: *block_bytes,
                same_offset_only: *same_offset_only,
            };
            return super::delta_out::send(self, key, source, &basis, frame);
        }
        self.send_segments(key, source, frame)
    }

    /// The digest of a file that did not change meanwhile.
    fn digest(&self, source: &SourceFile) -> Result<Digest, Unsent> {
        let digest =
            digest_file(&source.file, source.before.size, &self.session.stop).map_err(|e| self.read_error(e))?;
        match digest {
            Some(digest) if source.is_unchanged().map_err(|e| self.read_error(e))? => Ok(digest),
            _ => Err(Unsent::Changed),
        }
    }

    pub(super) fn read_error(&self, error: io::Error) -> Unsent {
        if self.session.is_ending() { Unsent::Ending } else { Unsent::Unreadable(Operation::Read, error) }
    }

    fn send_small(
        &self,
        key: FileKey,
        source: &SourceFile,
        known: Option<Digest>,
        frame: &mut OutFrame<'_>,
        last_attempt: bool,
    ) -> Result<(), Unsent> {
        let mut content = source.content();
        // One byte more than is expected: a file that grew shows at once.
        let mut bytes = std::mem::take(&mut frame.file);
        bytes.resize(content.size as usize + 1, 0);
        let read = fs::read_exact_or_eof_at(&source.file, &mut bytes, 0).map_err(|error| self.read_error(error))?;
        bytes.truncate(read.min(limits::SMALL_FILE_BYTES_MAX as usize));
        let unchanged = read as u64 == content.size && source.is_unchanged().map_err(|error| self.read_error(error))?;
        if !unchanged && !(self.session.options.live && (last_attempt || read as u64 <= limits::SMALL_FILE_BYTES_MAX)) {
            frame.file = bytes;
            return Err(Unsent::Changed);
        }
        content.size = bytes.len() as u64;
        let digest = ContentHasher::digest(&bytes);
        if unchanged && known == Some(digest) {
            frame.push(key, &DataRecord::Same { content });
        } else {
            frame.push_small(key, content, digest, !unchanged, &bytes);
            Counters::add(&self.session.counters().bytes_transferred, bytes.len() as u64);
        }
        frame.file = bytes;
        Ok(())
    }

    pub(super) fn send_segments(
        &self,
        key: FileKey,
        source: &SourceFile,
        frame: &mut OutFrame<'_>,
    ) -> Result<(), Unsent> {
        let content = source.content();
        let mut digests = SegmentDigests::new(content.size);
        let mut data = DataMap::new(&source.file, content.size);
        frame.send();
        frame.push(key, &DataRecord::Begin { content });
        let mut whole = true;
        for index in 0..digests.count() {
            if self.session.is_ending() {
                return Err(Unsent::Ending);
            }
            let start = index * limits::SEGMENT_BYTES;
            let length = (content.size - start).min(limits::SEGMENT_BYTES) as usize;
            let full = length as u64 == limits::SEGMENT_BYTES;
            if full && !data.has_data(start, start + limits::SEGMENT_BYTES).map_err(|error| self.read_error(error))? {
                digests.set(index, Digest(crate::model::ZERO_SEGMENT_DIGEST_BYTES));
                frame.push(key, &DataRecord::ZeroSegment { index });
                continue;
            }
            let mut bytes = std::mem::take(&mut frame.file);
            bytes.resize(length, 0);
            let read =
                fs::read_exact_or_eof_at(&source.file, &mut bytes, start).map_err(|error| self.read_error(error))?;
            if read < length {
                whole = false;
                // What is missing is sent as zeros; the file is not taken for whole.
                bytes[read..].fill(0);
                if !self.session.options.live {
                    frame.file = bytes;
                    return Err(Unsent::Changed);
                }
            }
            let digest = segment_digest(&bytes);
            digests.set(index, digest);
            frame.push_segment(key, index, digest, &bytes);
            Counters::add(&self.session.counters().bytes_transferred, length as u64);
            frame.file = bytes;
        }
        self.finish(key, source, &digests, whole, frame)
    }

    /// Ends a file whose segments were all sent.
    pub(super) fn finish(
        &self,
        key: FileKey,
        source: &SourceFile,
        digests: &SegmentDigests,
        whole: bool,
        frame: &mut OutFrame<'_>,
    ) -> Result<(), Unsent> {
        let unchanged = whole && source.is_unchanged().map_err(|error| self.read_error(error))?;
        if !unchanged && !self.session.options.live {
            return Err(Unsent::Changed);
        }
        let digest = digests.finish().ok_or(Unsent::Changed)?;
        frame.push(key, &DataRecord::End { digest, live: !unchanged });
        Ok(())
    }
}

/// Why a file's content was not sent.
pub(super) enum Unsent {
    Changed,
    Vanished(io::Error),
    Unreadable(Operation, io::Error),
    Ending,
}

impl Unsent {
    fn from_open(error: io::Error) -> Unsent {
        match error.kind() {
            io::ErrorKind::NotFound => Unsent::Vanished(error),
            _ => Unsent::Unreadable(Operation::Open, error),
        }
    }
}

/// A data frame that is being filled, and buffers that are used again.
pub(super) struct OutFrame<'a> {
    feed: &'a Feed,
    records: Vec<u8>,
    compressor: Compressor,
    pub(super) file: Vec<u8>,
}

impl<'a> OutFrame<'a> {
    fn new(feed: &'a Feed) -> OutFrame<'a> {
        OutFrame { feed, records: Vec::new(), compressor: Compressor::default(), file: Vec::new() }
    }

    /// Sends what is there.
    pub(super) fn send(&mut self) {
        if !self.records.is_empty() {
            let next = Vec::with_capacity(limits::DATA_FRAME_FILL_BYTES);
            self.feed.line.data(std::mem::replace(&mut self.records, next));
        }
    }

    pub(super) fn push(&mut self, key: FileKey, record: &DataRecord<'_>) {
        record.encode(key, &mut self.records);
        // Large files keep frames to themselves, so that one receiver thread sees their records in order.
        let alone = matches!(
            record,
            DataRecord::Begin { .. }
                | DataRecord::ZeroSegment { .. }
                | DataRecord::Patch { .. }
                | DataRecord::End { .. }
        );
        if alone || self.records.len() >= limits::DATA_FRAME_FILL_BYTES {
            self.send();
        }
    }

    fn push_small(&mut self, key: FileKey, content: crate::wire::Content, digest: Digest, live: bool, bytes: &[u8]) {
        let (encoding, bytes) = self.compressor.encode(bytes, self.feed.session.options.compression);
        DataRecord::Small { content, digest, live, encoding, bytes }.encode(key, &mut self.records);
        if self.records.len() >= limits::DATA_FRAME_FILL_BYTES {
            self.send();
        }
    }

    pub(super) fn push_segment(&mut self, key: FileKey, index: u64, digest: Digest, bytes: &[u8]) {
        let (encoding, bytes) = self.compressor.encode(bytes, self.feed.session.options.compression);
        DataRecord::Segment { index, digest, encoding, bytes }.encode(key, &mut self.records);
        self.send();
    }

    pub(super) fn push_patch(&mut self, key: FileKey, index: u64, digest: Digest, instructions: &[u8]) {
        let decoded_bytes = instructions.len() as u32;
        let (encoding, bytes) = self.compressor.encode(instructions, self.feed.session.options.compression);
        DataRecord::Patch { index, digest, encoding, decoded_bytes, bytes }.encode(key, &mut self.records);
        self.send();
    }
}
