//! Answers to wants: files are read, digested, compressed where it pays, and put into frames.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use crossbeam_channel::Receiver as Inbox;

use super::feed::{DELTA_THREADS, Feed, Job};
use super::out_frame::{Attempt, OutFrame};
use super::spread::{SPREAD_SEGMENTS_MIN, Spread};
use crate::fs;
use crate::limits;
use crate::model::{ContentHasher, Digest, Operation, Problem, ProblemKind};
use crate::monitor::Counters;
use crate::net::LinkWriter;
use crate::sync::content::digest_file;
use crate::sync::receiver::IDLE_LOOK;
use crate::sync::sender::read::SourceFile;
use crate::sync::sender::walk::SentPiece;
use crate::wire::{DataRecord, Failure, FileKey, Want, WantMode};

/// Where threads that send content find work.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) jobs: Inbox<Job>,
    pub(super) deltas: Inbox<Job>,
    /// Big files that other lanes ask for help with.
    pub(super) spreads: Inbox<Arc<Spread>>,
    /// Closed when data lanes have taken over from the control lane.
    pub(super) control_only: Inbox<()>,
}

/// Leave to answer a want against a basis over a data lane. Such a lane waits for signatures now and then, and the
/// receiver signs only so many files at once: half of the lanes, at most, so that other files never wait for those.
struct DeltaTurn<'a>(&'a Feed);

impl DeltaTurn<'_> {
    fn take(feed: &Feed) -> Option<DeltaTurn<'_>> {
        let most = (feed.lanes() / 2).clamp(1, DELTA_THREADS);
        let taken = feed
            .delta_lanes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < most).then(|| taken + 1));
        // Made only where it was taken: its end gives it back.
        taken.is_ok().then(|| DeltaTurn(feed))
    }
}

impl Drop for DeltaTurn<'_> {
    fn drop(&mut self) {
        self.0.delta_lanes.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One want on its way to being answered.
struct Answer {
    key: FileKey,
    /// Segments sent in earlier attempts.
    segments: u64,
    attempt: u8,
    is_last: bool,
}

impl Feed {
    /// Answers wants over the control lane, until the session is over or data lanes do.
    pub(super) fn work(&self, work: &Work) {
        let mut frame = OutFrame::queued(self);
        while !self.has_lanes() {
            if let Ok(job) = work.jobs.try_recv() {
                self.answer_all(&job, &mut frame);
                continue;
            }
            frame.send();
            crossbeam_channel::select! {
                recv(work.jobs) -> job => match job {
                    Ok(job) => self.answer_all(&job, &mut frame),
                    Err(_) => break,
                },
                recv(work.control_only) -> _ => break,
            }
        }
        frame.send();
    }

    /// Answers wants against a basis over the control lane; each waits for signatures now and then.
    pub(super) fn work_deltas(&self, work: &Work) {
        let mut frame = OutFrame::queued(self);
        loop {
            crossbeam_channel::select! {
                recv(work.deltas) -> job => match job {
                    Ok(job) => {
                        self.answer_all(&job, &mut frame);
                        frame.send();
                    }
                    Err(_) => return,
                },
                recv(work.control_only) -> _ => return,
            }
        }
    }

    /// Answers wants over a data lane until the session is over.
    pub(super) fn work_lane(&self, lane: LinkWriter, work: &Work) {
        let mut frame = OutFrame::over(self, lane);
        loop {
            if let Ok(spread) = work.spreads.try_recv() {
                spread.help(self, &mut frame);
                continue;
            }
            let may_delta = DeltaTurn::take(self);
            if may_delta.is_some()
                && let Ok(job) = work.deltas.try_recv()
            {
                self.answer_all(&job, &mut frame);
                frame.send();
                continue;
            }
            if let Ok(job) = work.jobs.try_recv() {
                drop(may_delta);
                self.answer_all(&job, &mut frame);
                continue;
            }
            frame.send();
            let never = crossbeam_channel::never();
            let deltas = if may_delta.is_some() { &work.deltas } else { &never };
            crossbeam_channel::select! {
                recv(work.spreads) -> spread => match spread {
                    Ok(spread) => spread.help(self, &mut frame),
                    Err(_) => break,
                },
                recv(work.jobs) -> job => match job {
                    Ok(job) => self.answer_all(&job, &mut frame),
                    Err(_) => break,
                },
                recv(deltas) -> job => match job {
                    Ok(job) => self.answer_all(&job, &mut frame),
                    Err(_) => break,
                },
                // Another lane may have left a turn meanwhile.
                default(IDLE_LOOK) => {}
            }
        }
        frame.close();
    }

    fn answer_all(&self, job: &Job, frame: &mut OutFrame<'_>) {
        for want in &job.wants {
            if self.session.is_ending() {
                break;
            }
            self.answer(&job.piece, want, frame);
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
        let mut outcome = Err(Unsent::Changed);
        let mut answer = Answer { key, segments: 0, attempt: 0, is_last: false };
        for attempt in 1..=limits::CHANGED_FILE_READS_MAX {
            let opened = sent
                .dir(index)
                .and_then(|dir| SourceFile::open(&dir, &sent.piece.entries[index].entry.name, sent.followed(index)));
            answer.is_last = attempt == limits::CHANGED_FILE_READS_MAX;
            outcome = match opened {
                Ok(source) => self.send_content(&mut answer, &Arc::new(source), &want.mode, frame),
                Err(error) => Err(Unsent::from_open(error)),
            };
            if !matches!(outcome, Err(Unsent::Changed)) {
                break;
            }
            answer.attempt += 1;
        }
        self.deltas.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        self.signatures.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        if let Err(unsent) = outcome {
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
            frame.push(key, &DataRecord::Failed { segments: answer.segments, failure, errno, text: b"" });
        }
    }

    fn send_content(
        &self,
        answer: &mut Answer,
        source: &Arc<SourceFile>,
        mode: &WantMode,
        frame: &mut OutFrame<'_>,
    ) -> Result<(), Unsent> {
        let content = source.content();
        let known = match mode {
            WantMode::IfDiffers(digest) => Some(*digest),
            WantMode::Delta { digest, basis_bytes, .. } if *basis_bytes == content.size => *digest,
            WantMode::Digest => {
                if content.size > limits::SMALL_FILE_BYTES_MAX {
                    frame.send();
                }
                let digest = self.digest(source)?;
                frame.push(answer.key, &DataRecord::Digest { digest });
                return Ok(());
            }
            _ => None,
        };
        if content.size <= limits::SMALL_FILE_BYTES_MAX && !matches!(mode, WantMode::Delta { .. }) {
            return self.send_small(answer, source, known, frame);
        }
        // With segments under way, `--inplace` has overwritten what `known` is the digest of.
        let known = known.filter(|_| answer.segments == 0);
        if let Some(known) = known {
            // What is done must not wait for a long read.
            frame.send();
            if self.digest(source)? == known {
                frame.push(answer.key, &DataRecord::Same { content, segments: answer.segments });
                return Ok(());
            }
        }
        let attempt = Attempt::new(answer.key, answer.attempt, content);
        if let WantMode::Delta { basis_bytes, block_bytes, same_offset_only, .. } = mode {
            let basis = super::delta_out::Basis {
                bytes: *basis_bytes,
                block_bytes: *block_bytes,
                same_offset_only: *same_offset_only,
            };
            // Signatures come once: when the file is read again, it is sent whole.
            if let Some(arriving) = super::delta_out::Arriving::of(self, answer.key, &basis) {
                let digests = super::delta_out::send(self, &attempt, source, &basis, arriving, frame);
                answer.segments += attempt.segments.load(Ordering::Relaxed);
                return self.finish(answer, &attempt, source, digests?.finish().ok_or(Unsent::Changed)?, true, frame);
            }
        }
        self.send_segments(answer, attempt, source, frame)
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
        answer: &Answer,
        source: &SourceFile,
        known: Option<Digest>,
        frame: &mut OutFrame<'_>,
    ) -> Result<(), Unsent> {
        let mut content = source.content();
        // No look for more: a file that grew shows in its length afterwards.
        let mut bytes = std::mem::take(&mut frame.file);
        bytes.resize(content.size as usize, 0);
        let read = fs::read_exact_or_eof_at(&source.file, &mut bytes, 0).map_err(|error| self.read_error(error))?;
        bytes.truncate(read);
        let unchanged = read as u64 == content.size && source.is_unchanged().map_err(|error| self.read_error(error))?;
        let takes_anyway = self.session.options.live && (answer.is_last || read as u64 <= limits::SMALL_FILE_BYTES_MAX);
        if !unchanged && !takes_anyway {
            frame.file = bytes;
            return Err(Unsent::Changed);
        }
        content.size = bytes.len() as u64;
        let digest = ContentHasher::digest(&bytes);
        if unchanged && answer.segments == 0 && known == Some(digest) {
            frame.push(answer.key, &DataRecord::Same { content, segments: answer.segments });
        } else {
            frame.push_small(answer.key, content, digest, !unchanged, answer.segments, &bytes);
            Counters::add(&self.session.counters().bytes_transferred, bytes.len() as u64);
        }
        frame.file = bytes;
        Ok(())
    }

    fn send_segments(
        &self,
        answer: &mut Answer,
        attempt: Attempt,
        source: &Arc<SourceFile>,
        frame: &mut OutFrame<'_>,
    ) -> Result<(), Unsent> {
        let spread = Arc::new(Spread::new(attempt, Arc::clone(source)));
        let helpers = self.lanes().saturating_sub(1).min((spread.segments() / SPREAD_SEGMENTS_MIN) as usize);
        for _ in 0..helpers {
            // No room means that enough is waiting already.
            let _asked = self.spreads.try_send(Arc::clone(&spread));
        }
        let sent = spread.lead(self, frame);
        answer.segments += spread.attempt.segments.load(Ordering::Relaxed);
        let (digest, whole) = sent?;
        self.finish(answer, &spread.attempt, source, digest, whole, frame)
    }

    /// Ends a file whose segments were all sent.
    fn finish(
        &self,
        answer: &Answer,
        attempt: &Attempt,
        source: &SourceFile,
        digest: Digest,
        whole: bool,
        frame: &mut OutFrame<'_>,
    ) -> Result<(), Unsent> {
        let unchanged = whole && source.is_unchanged().map_err(|error| self.read_error(error))?;
        if !unchanged && !self.session.options.live {
            return Err(Unsent::Changed);
        }
        let end = DataRecord::End { attempt: attempt.number, digest, live: !unchanged, segments: answer.segments };
        frame.push_of(attempt, &end);
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
    pub(super) fn from_open(error: io::Error) -> Unsent {
        match error.kind() {
            io::ErrorKind::NotFound => Unsent::Vanished(error),
            _ => Unsent::Unreadable(Operation::Open, error),
        }
    }
}
