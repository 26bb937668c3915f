//! A file that was wanted, while its content arrives.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use super::arriving::{Arriving, Completed, Failed, Old, Place};
use super::basis::Basis;
use super::intake::Intake;
use crate::delta::{self, Instruction};
use crate::fs;
use crate::limits;
use crate::model::{ContentHasher, Digest, Operation, ZERO_SEGMENT_DIGEST_BYTES, segment_digest};
use crate::monitor::Counters;
use crate::sync::content::{Decompressor, digest_file};
use crate::sync::inplace::write_differences;
use crate::sync::receiver::{FileTask, Receiver, Transferred, Written};
use crate::wire::{Content, DataRecord, Failure, FileKey, WantMode};

/// What becomes of a file whose answer has come to its end.
#[derive(PartialEq, Eq)]
pub(super) enum Settled {
    /// It was committed, or reported.
    Yes,
    /// What arrived does not have its digest: the file is asked for again, whole.
    Again,
}

/// What one thread that takes data uses again and again.
#[derive(Default)]
pub(super) struct Hands {
    decompressor: Decompressor,
    rebuilt: Vec<u8>,
    old: Old,
}

/// A file that was wanted. Its segments may be worked on by several threads at once.
pub(super) struct OpenFile {
    pub(super) task: FileTask,
    pub(super) basis: Option<Basis>,
    pub(super) block_bytes: u32,
    dry_run_digest: bool,
    /// Read by those who write segments, written by who begins an attempt: with `--inplace` no late segment of an
    /// attempt may be written after one of the next.
    state: RwLock<State>,
    trouble: Mutex<Trouble>,
    /// The settling record, encoded, while segments are still to come.
    end: Mutex<Option<Vec<u8>>>,
    /// Segments that have arrived: the signatures may run only so far ahead.
    arrived: Mutex<u64>,
    progress: Condvar,
    repairs: AtomicU64,
    /// Its answer has ended once: signatures are of no use any more.
    is_answered: AtomicBool,
}

#[derive(Default)]
struct State {
    attempt: Option<u8>,
    arriving: Option<Arriving>,
}

/// What went wrong in the current attempt.
#[derive(Default)]
struct Trouble {
    failed: Option<Failed>,
    wrong: bool,
}

const BASIS_CHANGED: &str = "the old file changed while parts of it were taken over";

/// Times that a file whose content does not have its digest is asked for again.
const REPAIRS_MAX: u64 = 2;

impl OpenFile {
    pub(super) fn new(task: FileTask, mode: &WantMode, basis: Option<Basis>) -> OpenFile {
        let block_bytes = match mode {
            WantMode::Delta { block_bytes, .. } => *block_bytes,
            _ => 0,
        };
        OpenFile {
            task,
            basis,
            block_bytes,
            dry_run_digest: *mode == WantMode::Digest,
            state: RwLock::default(),
            trouble: Mutex::default(),
            end: Mutex::default(),
            arrived: Mutex::new(0),
            progress: Condvar::new(),
            repairs: AtomicU64::new(0),
            is_answered: AtomicBool::new(false),
        }
    }

    /// Waits until so many `segments` have arrived, or `give_up` says so; false then.
    pub(super) fn wait_for_segments(&self, segments: u64, give_up: impl Fn() -> bool) -> bool {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        while *arrived < segments {
            if give_up() {
                return false;
            }
            arrived = self
                .progress
                .wait_timeout(arrived, crate::sync::receiver::IDLE_LOOK)
                .map(|(arrived, _)| arrived)
                .unwrap_or_else(|poisoned| poisoned.into_inner().0);
        }
        true
    }

    fn note_arrival(&self, segments: u64) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        *arrived = arrived.saturating_add(segments);
        self.progress.notify_all();
    }

    /// Whether signatures of the basis would come too late.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Acquire)
    }

    /// Keeps the settling record until all segments are there.
    pub(super) fn keep_end(&self, key: FileKey, record: &DataRecord<'_>) {
        let mut encoded = Vec::new();
        record.encode(key, &mut encoded);
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(encoded);
    }

    /// Takes what was kept.
    pub(super) fn take_end(&self) -> Option<Vec<u8>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A `Begin`, or a segment. Any thread, in any order.
    pub(super) fn on_segment(
        &self,
        intake: &Intake,
        receiver: &Arc<Receiver>,
        record: &DataRecord<'_>,
        hands: &mut Hands,
    ) {
        let Hands { decompressor, rebuilt, old } = hands;
        let counters = receiver.session.counters();
        let place = self.place(receiver);
        // Taken by whatever comes, so that none stays.
        let known = |index: u64| self.basis.as_ref().and_then(|basis| basis.take(index));
        match record {
            DataRecord::Begin { attempt, content } => self.begin(intake, *attempt, content),
            DataRecord::Segment { attempt, index, digest, encoding, bytes } => {
                let _differs = known(*index);
                self.step(*attempt, *index, |arriving, start, length| {
                    let Some(bytes) = decompressor.decode(bytes, *encoding, length) else { return Ok(false) };
                    if segment_digest(bytes) != *digest || !arriving.set(*index, *digest) {
                        return Ok(false);
                    }
                    arriving.literal_bytes.fetch_add(length as u64, Ordering::Relaxed);
                    Counters::add(&counters.bytes_transferred, length as u64);
                    arriving.write(place, bytes, start, old)
                });
            }
            DataRecord::ZeroSegment { attempt, index } => {
                let known = known(*index);
                self.step(*attempt, *index, |arriving, start, length| {
                    rebuilt.clear();
                    rebuilt.resize(length, 0);
                    let digest = match length as u64 == limits::SEGMENT_BYTES {
                        true => Digest(ZERO_SEGMENT_DIGEST_BYTES),
                        false => segment_digest(rebuilt),
                    };
                    if !arriving.set(*index, digest) {
                        return Ok(false);
                    }
                    if arriving.is_there(place, *index, length, digest, known) {
                        return arriving.take_over(place, start..start + length as u64, old);
                    }
                    arriving.write(place, rebuilt, start, old)
                });
            }
            DataRecord::Patch { attempt, index, digest, encoding, decoded_bytes, bytes } => {
                let known = known(*index);
                self.step(*attempt, *index, |arriving, start, length| {
                    let (Some(encoded), Some(basis)) =
                        (decompressor.decode(bytes, *encoding, *decoded_bytes as usize), &self.basis)
                    else {
                        return Ok(false);
                    };
                    let Ok(instructions) = delta::decode_instructions(encoded, length) else { return Ok(false) };
                    let stays = arriving.is_there(place, *index, length, *digest, known);
                    if !stays {
                        let file = BasisFile(&basis.file);
                        let bytes = fs::metadata_of(&basis.file).map_err(|error| (Operation::Stat, error))?.size;
                        rebuilt.clear();
                        let applied = delta::apply(&instructions, encoded, &file, bytes, length, rebuilt);
                        if applied.is_err() || segment_digest(rebuilt) != *digest {
                            return Ok(false);
                        }
                    }
                    if !arriving.set(*index, *digest) {
                        return Ok(false);
                    }
                    let literals = literal_bytes(&instructions);
                    arriving.literal_bytes.fetch_add(literals, Ordering::Relaxed);
                    arriving.matched_bytes.fetch_add(length as u64 - literals, Ordering::Relaxed);
                    Counters::add(&counters.bytes_transferred, literals);
                    match stays {
                        true => arriving.take_over(place, start..start + length as u64, old),
                        false => arriving.write_rebuilt(place, &instructions, rebuilt, start, old),
                    }
                });
            }
            _ => debug_assert!(false, "a settling record is no segment"),
        }
    }

    fn place<'a>(&'a self, receiver: &'a Arc<Receiver>) -> Place<'a> {
        Place { receiver, task: &self.task, basis: self.basis.as_ref() }
    }

    /// An attempt is said anew in every frame; the first word of it makes room for its content.
    fn begin(&self, intake: &Intake, attempt: u8, content: &Content) {
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.attempt.is_some_and(|current| current >= attempt) {
                if state.attempt == Some(attempt)
                    && state.arriving.as_ref().is_some_and(|arriving| arriving.content != *content)
                {
                    self.trouble().wrong = true;
                }
                return;
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.attempt.is_some_and(|current| current >= attempt) {
            return;
        }
        // With `--inplace` an earlier attempt may have written over what the basis was hashed as.
        let is_first = state.attempt.is_none() && self.repairs.load(Ordering::Relaxed) == 0;
        let arriving = Arriving::new(*content, &intake.early_segments, is_first && self.block_bytes > 0);
        // What was there of an earlier attempt is void.
        *state = State { attempt: Some(attempt), arriving: Some(arriving) };
        *self.trouble() = Trouble::default();
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on one segment; a failure is kept until the file's end.
    fn step(&self, attempt: u8, index: u64, work: impl FnOnce(&Arriving, u64, usize) -> Result<bool, Failed>) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let arriving = state.arriving.as_ref().filter(|_| state.attempt == Some(attempt));
        if let Some(arriving) = arriving {
            let start = index * limits::SEGMENT_BYTES;
            let length = arriving.content.size.saturating_sub(start).min(limits::SEGMENT_BYTES) as usize;
            match work(arriving, start, length) {
                Ok(true) => {}
                Ok(false) => self.trouble().wrong = true,
                Err(failed) => {
                    self.trouble().failed = Some(failed);
                    drop(state);
                    // Nothing is kept of it: on a full disk its room is needed.
                    let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                    if state.attempt == Some(attempt) {
                        state.arriving = None;
                    }
                }
            }
        }
        self.note_arrival(1);
    }

    /// The record that settles the file; every segment has been worked on.
    pub(super) fn on_end(
        &self,
        intake: &Intake,
        receiver: &Arc<Receiver>,
        record: &DataRecord<'_>,
        hands: &mut Hands,
    ) -> Settled {
        self.note_arrival(u64::MAX);
        self.is_answered.store(true, Ordering::Release);
        // Of an attempt that was given up nothing is used; it is gone before anything else is done with the file.
        let given_up = match record {
            DataRecord::Small { .. } | DataRecord::Same { .. } => self.take_arriving().arriving,
            _ => None,
        };
        let overwritten = given_up.as_ref().is_some_and(Arriving::has_overwritten);
        drop(given_up);
        match record {
            DataRecord::Small { content, digest, live, encoding, bytes, .. } => {
                let Some(bytes) = hands.decompressor.decode(bytes, *encoding, content.size as usize) else {
                    return self.repair(receiver);
                };
                if ContentHasher::digest(bytes) != *digest {
                    return self.repair(receiver);
                }
                Counters::add(&intake.session.counters().bytes_transferred, bytes.len() as u64);
                if let Some(settled) = self.pretend(receiver) {
                    return settled;
                }
                match self.write_small(receiver, bytes) {
                    Ok(written) => {
                        let transferred =
                            Transferred { literal_bytes: bytes.len() as u64, matched_bytes: 0, live: *live };
                        receiver.commit(&self.task, written, content, transferred);
                    }
                    Err((operation, error)) => receiver.fail_file(&self.task, operation, &error),
                }
            }
            DataRecord::End { attempt, digest, live, .. } => {
                return self.finish(receiver, *attempt, digest, *live, hands);
            }
            // What it is said to equal was written over.
            DataRecord::Same { .. } if overwritten => return self.repair(receiver),
            DataRecord::Same { .. } => {
                if self.task.check {
                    receiver.same_content(&self.task);
                } else {
                    self.keep_basis(intake, receiver);
                }
            }
            DataRecord::Digest { digest } => self.answer_dry_run(intake, receiver, digest),
            DataRecord::Failed { failure, .. } => {
                // Who could not read it has told it, and counts it; here it only closes the gate.
                if *failure != Failure::Vanished {
                    intake.session.note_source_problem();
                }
                self.keep_part(receiver);
                receiver.give_up(&self.task);
            }
            DataRecord::Begin { .. }
            | DataRecord::Segment { .. }
            | DataRecord::ZeroSegment { .. }
            | DataRecord::Patch { .. } => {}
        }
        Settled::Yes
    }

    fn take_arriving(&self) -> State {
        std::mem::take(&mut *self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn finish(&self, receiver: &Arc<Receiver>, attempt: u8, digest: &Digest, live: bool, hands: &mut Hands) -> Settled {
        let State { attempt: current, arriving } = self.take_arriving();
        let trouble = std::mem::take(&mut *self.trouble());
        if let Some((operation, error)) = trouble.failed {
            receiver.fail_file(&self.task, operation, &error);
            return Settled::Yes;
        }
        if arriving.as_ref().is_some_and(Arriving::has_changed_basis) {
            return self.transfer_whole(receiver, BASIS_CHANGED);
        }
        let Some(arriving) = arriving.filter(|_| current == Some(attempt) && !trouble.wrong) else {
            return self.repair(receiver);
        };
        if arriving.digest() != Some(*digest) {
            return self.repair(receiver);
        }
        let transferred = Transferred {
            literal_bytes: arriving.literal_bytes.load(Ordering::Relaxed),
            matched_bytes: arriving.matched_bytes.load(Ordering::Relaxed),
            live,
        };
        if let Some(basis) = &self.basis
            && !live
            && !self.task.apart
            && self.task.basis().is_some_and(|there| basis.is_inode(there))
            && arriving.is_as_basis(basis)
        {
            return match basis.is_unchanged() {
                Ok(true) => {
                    receiver.same_content(&self.task);
                    Settled::Yes
                }
                _ => self.transfer_whole(receiver, BASIS_CHANGED),
            };
        }
        let content = arriving.content;
        match arriving.complete(self.place(receiver), &mut hands.old) {
            Ok(Completed::Yes(written)) => receiver.commit(&self.task, written, &content, transferred),
            Ok(Completed::Changed) => return self.transfer_whole(receiver, BASIS_CHANGED),
            Ok(Completed::Stopped) => {}
            Err((operation, error)) => receiver.fail_file(&self.task, operation, &error),
        }
        Settled::Yes
    }

    /// The content that arrived is not what was sent: asked for again, a few times.
    fn repair(&self, receiver: &Arc<Receiver>) -> Settled {
        self.transfer_whole(receiver, "what arrived does not have its digest")
    }

    fn transfer_whole(&self, receiver: &Arc<Receiver>, why: &str) -> Settled {
        receiver.session.notice(format!("{}: {why}; the file is transferred again", self.task.path()));
        // What is asked for again begins anew.
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::default();
        *self.trouble() = Trouble::default();
        if self.repairs.fetch_add(1, Ordering::Relaxed) < REPAIRS_MAX {
            return Settled::Again;
        }
        let error = io::Error::new(io::ErrorKind::InvalidData, "what arrives does not have its digest");
        receiver.fail_file(&self.task, Operation::Digest, &error);
        Settled::Yes
    }

    fn write_small(&self, receiver: &Arc<Receiver>, bytes: &[u8]) -> Result<Written, (Operation, io::Error)> {
        let written = receiver.open_written(&self.task).map_err(|error| (Operation::Create, error))?;
        let result = match &written {
            Written::InPlace(_) => {
                let mut old = vec![0; bytes.len()];
                let file = written.file();
                write_differences(file, bytes, &mut old, 0).and_then(|_| file.set_len(bytes.len() as u64))
            }
            Written::Staged(stage) if receiver.session.options.sparse => {
                fs::write_sparse_at(stage.file(), bytes, 0).and_then(|()| stage.file().set_len(bytes.len() as u64))
            }
            Written::Staged(stage) => fs::write_all_at(stage.file(), bytes, 0),
        };
        result.map_err(|error| (Operation::Write, error))?;
        Ok(written)
    }

    /// A dry run never writes.
    fn pretend(&self, receiver: &Arc<Receiver>) -> Option<Settled> {
        receiver.session.options.dry_run.then(|| {
            receiver.pretend_content(&self.task);
            Settled::Yes
        })
    }

    /// The basis has the wanted content already: a file that is there needs its attributes, a part its place.
    fn keep_basis(&self, intake: &Intake, receiver: &Arc<Receiver>) {
        let is_there = self.basis.as_ref().zip(self.task.basis()).is_some_and(|(basis, there)| basis.is_inode(there));
        if is_there {
            return receiver.same_content(&self.task);
        }
        let size = self.task.size();
        let copied = receiver.open_written(&self.task).and_then(|written| {
            let basis = self.basis.as_ref().ok_or(io::ErrorKind::NotFound)?;
            fs::copy_file_data(&basis.file, written.file(), size, intake.session.options.sparse, &mut |_| Ok(()))?;
            Ok(written)
        });
        match copied {
            Ok(written) => {
                let transferred = Transferred { matched_bytes: size, ..Transferred::default() };
                receiver.commit(&self.task, written, &self.task.listed_content(), transferred);
            }
            Err(error) => receiver.fail_file(&self.task, Operation::Write, &error),
        }
    }

    fn answer_dry_run(&self, intake: &Intake, receiver: &Arc<Receiver>, digest: &Digest) {
        debug_assert!(self.dry_run_digest);
        let there = self.basis.as_ref().map(|basis| digest_file(&basis.file, self.task.size(), &intake.session.stop));
        match there {
            Some(Ok(Some(there))) if there == *digest => receiver.same_content(&self.task),
            Some(Err(error)) => receiver.fail_file(&self.task, Operation::Digest, &error),
            _ => receiver.pretend_content(&self.task),
        }
    }

    /// The run ends: what came is kept where that was asked for.
    pub(super) fn put_aside(&self, receiver: &Arc<Receiver>) {
        self.keep_part(receiver);
        self.note_arrival(u64::MAX);
    }

    fn keep_part(&self, receiver: &Arc<Receiver>) {
        let arriving = self.take_arriving().arriving;
        if let Some(written) = arriving.and_then(|arriving| arriving.into_part(self.place(receiver))) {
            receiver.put_aside(&self.task, written);
        }
    }
}

fn literal_bytes(instructions: &[Instruction]) -> u64 {
    instructions
        .iter()
        .map(|instruction| match instruction {
            Instruction::Literal { range } => range.len() as u64,
            _ => 0,
        })
        .sum()
}

/// A basis as the delta reads it.
struct BasisFile<'a>(&'a File);

impl delta::BasisRead for BasisFile<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match fs::read_exact_or_eof_at(self.0, buffer, offset)? {
            read if read == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
