//! Both ends on one machine: the walk hands its pieces to the receiver, and contents are copied by the kernel.

use std::fs::File;
use std::io;
use std::sync::{Arc, OnceLock, Weak};

use crossbeam_channel::{Receiver as Inbox, Sender as Outbox, TrySendError};

use super::SyncError;
use super::clock::Stopwatch;
use super::content::digest_file;
use super::held::HandleBudget;
use super::receiver::{Arrived, DestinationRoot, FileTask, Owners, Receiver, Supply, Transferred, Written};
use super::sender::read::SourceFile;
use super::sender::remove_sources;
use super::sender::sources::Sources;
use super::sender::walk::{PieceSink, SentPiece, Walk};
use super::session::Session;
use crate::fs;
use crate::limits;
use crate::model::{Operation, PieceId, Problem, ProblemKind, Stats};
use crate::monitor::{Counters, Phase};
use crate::net::Throttle;
use crate::plan::options::QuickCheck;

/// Files from this size on go to whichever thread is idle, so that several large files of one piece are copied at once.
const SHARED_FILE_BYTES_MIN: u64 = 1 << 20;

/// Copies that wait for an idle thread. When it is full, the thread that found the file copies it.
const WAITING_COPIES_MAX: usize = 64;

/// Copies contents from the source's own files.
pub(super) struct LocalSupply {
    session: Arc<Session>,
    walk: OnceLock<Weak<Walk>>,
    throttle: Throttle,
    waiting: Outbox<FileTask>,
    inbox: Inbox<FileTask>,
}

impl LocalSupply {
    pub(super) fn new(session: Arc<Session>) -> Arc<LocalSupply> {
        let (waiting, inbox) = crossbeam_channel::bounded(WAITING_COPIES_MAX);
        let throttle = Throttle::new(session.options.bwlimit_bytes_per_s);
        Arc::new(LocalSupply { session, walk: OnceLock::new(), throttle, waiting, inbox })
    }

    /// The walk whose credit comes back with settled pieces.
    pub(super) fn attach(&self, walk: &Arc<Walk>) {
        let _attached_once = self.walk.set(Arc::downgrade(walk));
    }

    /// Copies large files until the transfer is done or the run ends.
    pub(super) fn work(&self, receiver: &Arc<Receiver>) {
        while !self.session.is_ending() {
            match self.inbox.recv_timeout(super::receiver::IDLE_LOOK) {
                Ok(task) => self.copy(receiver, task),
                Err(_) if receiver.is_finished() => return,
                Err(_) => {}
            }
        }
    }

    fn copy(&self, receiver: &Arc<Receiver>, task: FileTask) {
        let Some(sent) = task.sent().cloned() else { return receiver.give_up(&task) };
        let index = usize::from(task.index);
        for _ in 0..limits::CHANGED_FILE_READS_MAX {
            let opened = sent
                .dir(index)
                .and_then(|dir| SourceFile::open(&dir, &sent.piece.entries[index].entry.name, sent.followed(index)));
            let source = match opened {
                Ok(source) => source,
                Err(error) => return self.unreadable(receiver, &task, &sent, Operation::Open, &error),
            };
            match self.try_copy(receiver, &task, &source) {
                Ok(Step::Done) => return,
                Ok(Step::Commit(written, transferred)) => {
                    let content = source.content();
                    return receiver.commit(&task, written, &content, transferred);
                }
                Ok(Step::Changed) => {}
                Err(Failure::Source(error)) => {
                    return self.unreadable(receiver, &task, &sent, Operation::Read, &error);
                }
                Err(Failure::Destination(operation, error)) => return receiver.fail_file(&task, operation, &error),
                // The run ends: the entry stays unsettled.
                Err(Failure::Ending) => return,
            }
        }
        self.session.problem(Problem::new(
            ProblemKind::Changed,
            Operation::Read,
            sent.shown(index),
            "it kept changing; the destination keeps what it had (--live takes it as it is)",
        ));
        receiver.give_up(&task);
    }

    fn try_copy(&self, receiver: &Arc<Receiver>, task: &FileTask, source: &SourceFile) -> Result<Step, Failure> {
        let options = &self.session.options;
        let length = source.before.size;
        let read = Failure::Source;
        let mut digest = None;
        if task.check || options.quick_check == QuickCheck::Checksum {
            digest = digest_file(&source.file, length, &self.session.stop).map_err(read)?;
            if digest.is_none() {
                return Ok(Step::Changed);
            }
        }
        if task.check {
            let there = task
                .open_checked()
                .and_then(|file| digest_file(&file, length, &self.session.stop))
                .map_err(|error| Failure::Destination(Operation::Digest, error))?;
            if there == digest {
                if !source.is_unchanged().map_err(read)? {
                    return Ok(Step::Changed);
                }
                receiver.same_content(task);
                return Ok(Step::Done);
            }
        }
        if options.dry_run {
            receiver.pretend_content(task);
            return Ok(Step::Done);
        }
        let mut written =
            receiver.open_written(task).map_err(|error| Failure::Destination(Operation::Create, error))?;
        let mut progress = |bytes: u64| {
            Counters::add(&self.session.counters().bytes_transferred, bytes);
            if self.session.is_ending() || !self.throttle.take(bytes as usize, self.session.stop.as_atomic()) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        };
        let copied = match &mut written {
            Written::Staged(stage) if !self.throttle.is_unlimited() => {
                self.copy_slowly(&source.file, stage.file(), length)
            }
            Written::Staged(stage) => {
                fs::copy_file_data(&source.file, stage.file(), length, options.sparse, &mut progress)
            }
            Written::InPlace(_) => super::inplace::patch(&source.file, written.file(), length, &mut progress),
        };
        let copied = match copied {
            Ok(copied) => copied,
            Err(_) if self.session.is_ending() => {
                receiver.put_aside(task, written);
                return Err(Failure::Ending);
            }
            Err(error) => return Err(self.blame(source, error)),
        };
        let changed = copied != length || !source.is_unchanged().map_err(Failure::Source)?;
        if changed && !options.live {
            return Ok(Step::Changed);
        }
        if let Some(digest) = digest.filter(|_| !changed) {
            let there = digest_file(written.file(), length, &self.session.stop)
                .map_err(|error| Failure::Destination(Operation::Digest, error))?;
            if there != Some(digest) {
                let mismatch = io::Error::new(io::ErrorKind::InvalidData, "the copy does not have the source's digest");
                return Err(Failure::Destination(Operation::Digest, mismatch));
            }
        }
        Ok(Step::Commit(written, Transferred { literal_bytes: copied, matched_bytes: 0, live: changed }))
    }

    /// Under `--bwlimit`: in pieces that the pace allows at once, where the kernel would copy all in one go.
    fn copy_slowly(&self, source: &File, destination: &File, length: u64) -> io::Result<u64> {
        let mut buffer = vec![0; limits::COPY_CHUNK_BYTES.min(self.throttle.piece_bytes().max(4096))];
        let mut offset = 0;
        while offset < length {
            let wanted = (length - offset).min(buffer.len() as u64) as usize;
            if self.session.is_ending() || !self.throttle.take(wanted, self.session.stop.as_atomic()) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let read = fs::read_exact_or_eof_at(source, &mut buffer[..wanted], offset)?;
            match self.session.options.sparse {
                true => fs::write_sparse_at(destination, &buffer[..read], offset)?,
                false => fs::write_all_at(destination, &buffer[..read], offset)?,
            }
            offset += read as u64;
            Counters::add(&self.session.counters().bytes_transferred, read as u64);
            if read < wanted {
                break;
            }
        }
        destination.set_len(offset)?;
        Ok(offset)
    }

    /// A copy in the kernel does not say which side failed: a source that can still be read is not to blame.
    fn blame(&self, source: &SourceFile, error: io::Error) -> Failure {
        let is_source = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
            && digest_file(&source.file, source.before.size, &self.session.stop).is_err();
        if is_source { Failure::Source(error) } else { Failure::Destination(Operation::Write, error) }
    }

    fn unreadable(
        &self,
        receiver: &Arc<Receiver>,
        task: &FileTask,
        sent: &SentPiece,
        operation: Operation,
        error: &io::Error,
    ) {
        let kind = if error.kind() == io::ErrorKind::NotFound { ProblemKind::Vanished } else { ProblemKind::Source };
        self.session.io_problem(kind, operation, sent.shown(usize::from(task.index)), error);
        receiver.give_up(task);
    }
}

enum Step {
    Done,
    Commit(Written, Transferred),
    Changed,
}

enum Failure {
    Source(io::Error),
    Destination(Operation, io::Error),
    Ending,
}

impl Supply for LocalSupply {
    fn fetch(&self, receiver: &Arc<Receiver>, task: FileTask) {
        if task.size() < SHARED_FILE_BYTES_MIN {
            return self.copy(receiver, task);
        }
        match self.waiting.try_send(task) {
            Ok(()) => {}
            Err(TrySendError::Full(task) | TrySendError::Disconnected(task)) => self.copy(receiver, task),
        }
    }

    fn flush(&self, _receiver: &Arc<Receiver>, _piece: PieceId) {}

    fn release(&self, arrived: &Arrived, safe: Vec<u16>) {
        if let Arrived::Local(sent) = arrived
            && self.session.options.remove_source_files
        {
            remove_sources(&self.session, sent, &safe);
        }
        if let Some(walk) = self.walk.get().and_then(Weak::upgrade) {
            let released = walk.flow(|flow| flow.on_release(arrived.piece().id));
            debug_assert_eq!(released, Ok(()));
        }
    }
}

/// Hands a walk's pieces to a receiver in the same process.
pub(super) struct LocalSink(pub(super) Arc<Receiver>);

impl PieceSink for LocalSink {
    fn piece(&self, piece: Arc<SentPiece>) {
        self.0.arrive(Arrived::Local(piece));
    }
}

/// Runs a sync on one machine.
pub(super) fn run(
    session: &Arc<Session>,
    arguments: &[Vec<u8>],
    destination: &[u8],
    watch: &Stopwatch,
) -> Result<Stats, SyncError> {
    let budget = HandleBudget::new(super::handles_max());
    let sources = Sources::resolve(arguments, session, &budget);
    if let Some(error) = session.take_error() {
        return Err(error);
    }
    if sources.layers.is_empty() {
        // Everything that was named is missing or skipped, and was told.
        return Ok(Stats::default());
    }
    let root_entry = sources.root_entry(session);
    let root = DestinationRoot::open(destination, sources.single.as_ref(), session)?;
    root.warn_of_nesting(arguments, session);
    let supply = LocalSupply::new(Arc::clone(session));
    let owners = Owners::new(&session.options, false);
    let receiver =
        Receiver::new(Arc::clone(session), root, root_entry, Arc::clone(&supply) as Arc<dyn Supply>, owners, &budget);
    let walk = Arc::new(Walk::new(Arc::clone(session), Arc::new(LocalSink(Arc::clone(&receiver)))));
    supply.attach(&walk);
    session.phase(Phase::Transferring);
    let end = std::thread::scope(|scope| {
        for _ in 0..super::threads() {
            crate::sync::spawn(scope, session, || {
                receiver.work();
                walk.wake();
            });
            crate::sync::spawn(scope, session, || supply.work(&receiver));
        }
        let end = walk.run(&sources, super::threads());
        session.listing_done(watch.elapsed_ms());
        receiver.wait_until_finished();
        walk.wake();
        end
    });
    if session.is_ending() {
        receiver.abandon();
        return Ok(Stats::default());
    }
    receiver.conclude(&end)?;
    // What rsync's two processes would have sent each other.
    session.count(|stats| stats.sent_bytes = stats.literal_bytes);
    Ok(Stats::default())
}
