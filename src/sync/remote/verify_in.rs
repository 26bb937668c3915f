//! The verifying receiver over a link: listings in, wants for digests out, digests in.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use super::Part;
use super::intake::sources_message;
use super::pump::{CutOnDrop, Ends, Line, read_message, write_all};
use super::session_end::{self, SessionEnd};
use crate::limits;
use crate::model::{Kind, Outcome, PieceId, Stats};
use crate::monitor::{Counters, Phase};
use crate::net::LinkReader;
use crate::sync::SyncError;
use crate::sync::clock::Stopwatch;
use crate::sync::held::HandleBudget;
use crate::sync::receiver::{Arrived, IDLE_LOOK, Owners};
use crate::sync::session::Session;
use crate::sync::verify::{FileCheck, SourceSide, Target, Verifier};
use crate::wire::{DataRecord, FileKey, FlowError, Message, ReceiverFlow, RecordReader, Want, WantMode};

/// Wants that are gathered for one message, at most.
const WANTS_GATHERED_MAX: usize = 64;

/// The verifying side of a session.
struct VerifyIntake {
    session: Arc<Session>,
    line: Line,
    flow: Mutex<ReceiverFlow>,
    room: Condvar,
    open: Mutex<HashMap<FileKey, Arc<FileCheck>>>,
    batches: Mutex<HashMap<PieceId, Vec<Want>>>,
    listing_ended: OnceLock<()>,
    end: SessionEnd,
}

/// Runs the comparison, at either end; `destination: None` takes the source's digest only.
pub(super) fn run(mut part: Part<'_>, destination: Option<&[u8]>) -> Result<Stats, SyncError> {
    let (line, outgoing) = part.line();
    let prepared = sources_message(part.session, &mut part.ends.reader).and_then(|(single, root)| {
        let target = destination
            .map(|destination| Target::open_in(&part.session.base, destination, single.as_ref()))
            .transpose()?;
        Ok((target, root))
    });
    let (target, root) = prepared.map_err(|error| part.give_up(error))?;
    let Part { session, ends: Ends { reader, writer, cut }, watch, relay, traffic, .. } = part;
    let intake = Arc::new(VerifyIntake {
        session: Arc::clone(session),
        line: line.clone(),
        flow: Mutex::new(ReceiverFlow::new()),
        room: Condvar::new(),
        open: Mutex::default(),
        batches: Mutex::default(),
        listing_ended: OnceLock::new(),
        end: SessionEnd::default(),
    });
    session.phase(Phase::Transferring);
    let peer = std::thread::scope(|scope| {
        let cut = CutOnDrop(cut);
        let intake = &intake;
        // Before the verifier, whose first words are about the roots.
        crate::sync::spawn(scope, session, move || {
            if let Err(error) = write_all(writer, &outgoing) {
                intake.link_failed(SyncError::from_link(error));
            }
        });
        let verifier = Verifier::new(
            Arc::clone(session),
            target,
            root.map(|root| *root),
            Arc::clone(intake) as Arc<dyn SourceSide>,
            Owners::new(&session.options, true),
            &HandleBudget::new(crate::sync::handles_max()),
        );
        let reading = Arc::clone(&verifier);
        crate::sync::spawn(scope, session, move || intake.read(reader, &reading, watch));
        for _ in 0..crate::sync::threads() {
            let verifier = Arc::clone(&verifier);
            crate::sync::spawn(scope, session, move || verifier.work());
        }
        verifier.wait_until_finished();
        intake.wait_for_listing_end();
        let mut peer = None;
        if let Some(relay) = relay {
            match intake.end.for_client(session) {
                Some(error) => {
                    line.say(&error.for_peer());
                    session.fail(error);
                }
                None => {
                    if let Some(digest) = session.tree_digest.get()
                        && session.stats().outcome() == Outcome::Complete
                    {
                        line.say(&Message::TreeDigest(*digest));
                    }
                }
            }
            relay.detach();
        } else if session.stop.requested() {
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

impl VerifyIntake {
    fn flow<T>(&self, step: impl FnOnce(&mut ReceiverFlow) -> T) -> T {
        step(&mut self.flow.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn link_failed(&self, error: SyncError) {
        if !matches!(error, SyncError::Stopped) {
            self.session.fail(error);
        }
        self.end.link_over();
        self.room.notify_all();
    }

    /// The last piece can be settled before the word comes that it was the last; done is only who has heard it.
    fn wait_for_listing_end(&self) {
        let mut flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        while self.listing_ended.get().is_none() && !self.session.is_ending() {
            flow = self
                .room
                .wait_timeout(flow, IDLE_LOOK)
                .map(|(flow, _)| flow)
                .unwrap_or_else(|poisoned| poisoned.into_inner().0);
        }
    }

    /// Reads messages until the link ends. Waits for nothing else, so that digests always come in.
    fn read(&self, mut reader: LinkReader, verifier: &Arc<Verifier>, watch: &Stopwatch) {
        loop {
            let message = match read_message(&mut reader) {
                Ok(message) => message,
                Err(SyncError::Link(crate::net::LinkError::Closed)) if self.end.is_done() => {
                    return self.end.link_over();
                }
                Err(error) => return self.link_failed(error),
            };
            if let Err(error) = self.on_message(message, verifier, watch) {
                return self.link_failed(error);
            }
        }
    }

    fn on_message(&self, message: Message, verifier: &Arc<Verifier>, watch: &Stopwatch) -> Result<(), SyncError> {
        match message {
            Message::Listing(piece) => {
                self.flow(|flow| flow.on_piece(&piece))?;
                let counters = self.session.counters();
                Counters::add(&counters.entries_listed, piece.entries.len() as u64);
                let files = piece.entries.iter().filter(|listed| listed.entry.metadata.kind == Kind::File);
                Counters::add(&counters.bytes_listed, files.map(|listed| listed.entry.metadata.size).sum());
                verifier.arrive(Arrived::Remote(*piece));
            }
            Message::Owners { users, groups } => verifier.owners.learn(users, groups),
            Message::ListingEnd(_) => {
                self.flow(ReceiverFlow::on_listing_end)?;
                self.session.listing_done(watch.elapsed_ms());
                if self.listing_ended.set(()).is_err() {
                    return Err(FlowError::Twice { what: "end of listings", number: 0 }.into());
                }
                self.room.notify_all();
            }
            Message::Data(payload) => self.on_data(&payload, verifier)?,
            Message::Event(event) => self.session.monitor.event(*event),
            Message::Done(stats) => self.end.peer_done(*stats),
            Message::Stop => {
                self.end.peer_stops();
                self.session.stop.request();
                self.room.notify_all();
            }
            Message::Fatal { text, hint, timed_out } => return Err(SyncError::Far { text, hint, timed_out }),
            _ => return Err(FlowError::Unexpected { what: "message" }.into()),
        }
        Ok(())
    }

    fn on_data(&self, payload: &[u8], verifier: &Arc<Verifier>) -> Result<(), SyncError> {
        let mut records = RecordReader::new(payload);
        while let Some((key, record)) = records.next()? {
            if !self.flow(|flow| flow.on_record(key, &record))? {
                return Err(FlowError::Unexpected { what: "record" }.into());
            }
            self.room.notify_all();
            let digest = match record {
                DataRecord::Digest { digest } => Some(digest),
                DataRecord::Failed { .. } => None,
                _ => return Err(FlowError::Unexpected { what: "record" }.into()),
            };
            let check = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            if let Some(check) = check {
                verifier.source_digest(&check, digest);
            }
        }
        Ok(())
    }

    fn send_wants(&self, piece: PieceId) {
        let wants = self.batches.lock().unwrap_or_else(PoisonError::into_inner).remove(&piece);
        if let Some(wants) = wants.filter(|wants| !wants.is_empty()) {
            self.line.say(&Message::Wants { piece, wants });
        }
    }
}

impl SourceSide for VerifyIntake {
    fn want(&self, check: &Arc<FileCheck>) {
        let key = check.key();
        let mut flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        // Digests are small: their number is bounded, not the length of the files.
        if !flow.may_want(0) {
            drop(flow);
            // What was gathered must leave, or its answers never make room.
            self.send_wants(key.piece);
            flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
            while !flow.may_want(0) {
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
        flow.want(key, &WantMode::Digest, 0);
        drop(flow);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(check));
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = batches.entry(key.piece).or_default();
        batch.push(Want { index: key.index, mode: WantMode::Digest });
        let is_full = batch.len() >= WANTS_GATHERED_MAX;
        drop(batches);
        if is_full {
            self.send_wants(key.piece);
        }
    }

    fn flush(&self, piece: PieceId) {
        self.send_wants(piece);
    }

    fn release(&self, arrived: &Arrived) {
        let piece = arrived.piece().id;
        self.flow(|flow| flow.release(piece));
        self.line.say(&Message::Release { piece, safe: Vec::new() });
    }
}
