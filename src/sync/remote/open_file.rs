//! A file that was wanted, while its content arrives.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::intake::Intake;
use crate::delta::{self, Instruction};
use crate::fs;
use crate::limits;
use crate::model::{ContentHasher, Digest, Operation, SegmentDigests, segment_digest};
use crate::monitor::Counters;
use crate::sync::content::{Decompressor, digest_file};
use crate::sync::inplace::write_differences;
use crate::sync::receiver::{FileTask, Receiver, Transferred, Written};
use crate::wire::{Content, DataRecord, Failure, WantMode};

/// Whether a record settled its file.
pub(super) enum Settled {
    No,
    Yes,
    /// What arrived does not have its digest: the file is asked for again, whole.
    Again,
}

/// A file that was wanted.
pub(super) struct OpenFile {
    pub(super) task: FileTask,
    pub(super) basis: Option<File>,
    pub(super) block_bytes: u32,
    /// Length of the basis as the want told it: so many signatures are waited for.
    pub(super) basis_bytes: u64,
    dry_run_digest: bool,
    state: Mutex<State>,
    /// Segments that have arrived: the signatures may run only so far ahead.
    arrived: Mutex<u64>,
    progress: Condvar,
    repairs: AtomicU64,
}

#[derive(Default)]
struct State {
    arriving: Option<Arriving>,
    failed: Option<(Operation, io::Error)>,
    wrong: bool,
}

struct Arriving {
    written: Written,
    content: Content,
    digests: SegmentDigests,
    transferred: Transferred,
    buffer: Vec<u8>,
    old: Vec<u8>,
}

/// Times that a file whose content does not have its digest is asked for again.
const REPAIRS_MAX: u64 = 2;

impl OpenFile {
    pub(super) fn new(task: FileTask, mode: &WantMode, basis: Option<File>) -> OpenFile {
        let (block_bytes, basis_bytes) = match mode {
            WantMode::Delta { block_bytes, basis_bytes, .. } => (*block_bytes, *basis_bytes),
            _ => (0, 0),
        };
        OpenFile {
            task,
            basis,
            block_bytes,
            basis_bytes,
            dry_run_digest: *mode == WantMode::Digest,
            state: Mutex::default(),
            arrived: Mutex::new(0),
            progress: Condvar::new(),
            repairs: AtomicU64::new(0),
        }
    }

    /// Waits until segments up to `segment` have arrived, or `give_up` says so; false then.
    pub(super) fn wait_for_segment(&self, segment: u64, give_up: impl Fn() -> bool) -> bool {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        while *arrived < segment {
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
        *arrived = (*arrived).max(segments);
        self.progress.notify_all();
    }

    /// One record of this file, in order.
    pub(super) fn on_record(
        &self,
        intake: &Intake,
        receiver: &Arc<Receiver>,
        record: &DataRecord<'_>,
        decompressor: &mut Decompressor,
    ) -> Settled {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match record {
            DataRecord::Small { content, digest, live, encoding, bytes } => {
                let Some(bytes) = decompressor.decode(bytes, *encoding, content.size as usize) else {
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
                Settled::Yes
            }
            DataRecord::Begin { content } => {
                // What was there of an earlier attempt is void.
                *state = State::default();
                match receiver.open_written(&self.task) {
                    Ok(written) => {
                        state.arriving = Some(Arriving {
                            written,
                            content: *content,
                            digests: SegmentDigests::new(content.size),
                            transferred: Transferred::default(),
                            buffer: Vec::new(),
                            old: Vec::new(),
                        });
                    }
                    Err(error) => state.failed = Some((Operation::Create, error)),
                }
                Settled::No
            }
            DataRecord::Segment { index, digest, encoding, bytes } => {
                self.step(&mut state, *index, |arriving, start, length| {
                    let Some(bytes) = decompressor.decode(bytes, *encoding, length) else { return Ok(false) };
                    if segment_digest(bytes) != *digest || !arriving.digests.set(*index, *digest) {
                        return Ok(false);
                    }
                    arriving.transferred.literal_bytes += length as u64;
                    Counters::add(&intake.session.counters().bytes_transferred, length as u64);
                    arriving.write(bytes, start, intake.session.options.sparse)?;
                    Ok(true)
                });
                Settled::No
            }
            DataRecord::ZeroSegment { index } => {
                self.step(&mut state, *index, |arriving, start, length| {
                    let zeros = vec![0; length];
                    if !arriving.digests.set(*index, segment_digest(&zeros)) {
                        return Ok(false);
                    }
                    arriving.write(&zeros, start, intake.session.options.sparse)?;
                    Ok(true)
                });
                Settled::No
            }
            DataRecord::Patch { index, digest, encoding, decoded_bytes, bytes } => {
                let basis = self.basis.as_ref();
                self.step(&mut state, *index, |arriving, start, length| {
                    let (Some(encoded), Some(basis)) =
                        (decompressor.decode(bytes, *encoding, *decoded_bytes as usize), basis)
                    else {
                        return Ok(false);
                    };
                    let Ok(instructions) = delta::decode_instructions(encoded, length) else { return Ok(false) };
                    let basis_bytes = fs::metadata_of(basis)?.size;
                    let mut rebuilt = std::mem::take(&mut arriving.buffer);
                    rebuilt.clear();
                    let applied =
                        delta::apply(&instructions, encoded, &BasisFile(basis), basis_bytes, length, &mut rebuilt);
                    let good =
                        applied.is_ok() && segment_digest(&rebuilt) == *digest && arriving.digests.set(*index, *digest);
                    if good {
                        let literals = literal_bytes(&instructions);
                        arriving.transferred.literal_bytes += literals;
                        arriving.transferred.matched_bytes += length as u64 - literals;
                        Counters::add(&intake.session.counters().bytes_transferred, literals);
                        arriving.write(&rebuilt, start, intake.session.options.sparse)?;
                    }
                    arriving.buffer = rebuilt;
                    Ok(good)
                });
                Settled::No
            }
            DataRecord::End { digest, live } => self.finish(&mut state, receiver, digest, *live),
            DataRecord::Same { .. } => {
                if self.task.check {
                    receiver.same_content(&self.task);
                } else {
                    self.keep_basis(intake, receiver);
                }
                Settled::Yes
            }
            DataRecord::Digest { digest } => {
                self.answer_dry_run(intake, receiver, digest);
                Settled::Yes
            }
            DataRecord::Failed { failure, .. } => {
                // Who could not read it has told it, and counts it; here it only closes the gate.
                if *failure != Failure::Vanished {
                    intake.session.note_source_problem();
                }
                if let Some(arriving) = state.arriving.take() {
                    receiver.put_aside(&self.task, arriving.written);
                }
                receiver.give_up(&self.task);
                Settled::Yes
            }
        }
    }

    /// Works on one segment; a failure is kept until the file's end.
    fn step(&self, state: &mut State, index: u64, work: impl FnOnce(&mut Arriving, u64, usize) -> io::Result<bool>) {
        if let Some(arriving) = &mut state.arriving {
            let start = index * limits::SEGMENT_BYTES;
            let length = arriving.content.size.saturating_sub(start).min(limits::SEGMENT_BYTES) as usize;
            match work(arriving, start, length) {
                Ok(true) => {}
                Ok(false) => state.wrong = true,
                Err(error) => {
                    state.failed = Some((Operation::Write, error));
                    // Nothing is kept of it: on a full disk its room is needed.
                    state.arriving = None;
                }
            }
        }
        self.note_arrival(index + 1);
    }

    fn finish(&self, state: &mut State, receiver: &Arc<Receiver>, digest: &Digest, live: bool) -> Settled {
        self.note_arrival(u64::MAX);
        if let Some((operation, error)) = state.failed.take() {
            receiver.fail_file(&self.task, operation, &error);
            return Settled::Yes;
        }
        let Some(arriving) = state.arriving.take() else { return self.repair(receiver) };
        if state.wrong || arriving.digests.finish() != Some(*digest) {
            *state = State::default();
            return self.repair(receiver);
        }
        if let Err(error) = arriving.written.file().set_len(arriving.content.size) {
            receiver.fail_file(&self.task, Operation::Write, &error);
            return Settled::Yes;
        }
        let transferred = Transferred { live, ..arriving.transferred };
        receiver.commit(&self.task, arriving.written, &arriving.content, transferred);
        Settled::Yes
    }

    /// The content that arrived is not what was sent: asked for again, a few times.
    fn repair(&self, receiver: &Arc<Receiver>) -> Settled {
        receiver.session.notice(format!(
            "{}: what arrived does not have its digest; the file is transferred again",
            self.task.path()
        ));
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
        let is_there = self.basis.as_ref().zip(self.task.basis()).is_some_and(|(basis, there)| {
            fs::metadata_of(basis).is_ok_and(|basis| (basis.dev, basis.ino) == (there.dev, there.ino))
        });
        if is_there {
            return receiver.same_content(&self.task);
        }
        let size = self.task.size();
        let copied = receiver.open_written(&self.task).and_then(|written| {
            let basis = self.basis.as_ref().ok_or(io::ErrorKind::NotFound)?;
            fs::copy_file_data(basis, written.file(), size, intake.session.options.sparse, &mut |_| Ok(()))?;
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
        let there = self.basis.as_ref().map(|basis| digest_file(basis, self.task.size(), &intake.session.stop));
        match there {
            Some(Ok(Some(there))) if there == *digest => receiver.same_content(&self.task),
            Some(Err(error)) => receiver.fail_file(&self.task, Operation::Digest, &error),
            _ => receiver.pretend_content(&self.task),
        }
    }

    /// The run ends: what came is kept where that was asked for.
    pub(super) fn put_aside(&self, receiver: &Arc<Receiver>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(arriving) = state.arriving.take() {
            receiver.put_aside(&self.task, arriving.written);
        }
        self.note_arrival(u64::MAX);
    }
}

impl Arriving {
    fn write(&mut self, bytes: &[u8], start: u64, sparse: bool) -> io::Result<()> {
        match &self.written {
            Written::InPlace(_) => {
                self.old.resize(bytes.len().max(self.old.len()), 0);
                write_differences(self.written.file(), bytes, &mut self.old, start).map(|_| ())
            }
            Written::Staged(stage) if sparse => fs::write_sparse_at(stage.file(), bytes, start),
            Written::Staged(stage) => fs::write_all_at(stage.file(), bytes, start),
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
