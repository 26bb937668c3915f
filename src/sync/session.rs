//! What every thread of one side of a run shares: options, the monitor, totals, the wish to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::verify::VerifyMode;
use super::{StopFlag, SyncError};
use crate::fs::Base;
use crate::model::{Digest, Operation, Problem, ProblemKind, Stats};
use crate::monitor::{Counters, Event, Item, Monitor, Phase};
use crate::plan::options::SyncOptions;

/// Shared by all threads of one side.
pub(super) struct Session {
    pub(super) options: SyncOptions,
    pub(super) monitor: Arc<dyn Monitor>,
    /// Where paths begin that the user, or the peer, wrote.
    pub(super) base: Base,
    /// The user's wish, or the peer's.
    pub(super) stop: StopFlag,
    /// Compares instead of copying.
    pub(super) verify: Option<VerifyMode>,
    /// With `verify`: the digest of the source's tree, once it is known.
    pub(super) tree_digest: OnceLock<Digest>,
    stats: Mutex<Stats>,
    error: Mutex<Option<SyncError>>,
    /// Set with the first error: nothing new is begun.
    failed: AtomicBool,
    source_problems: AtomicU64,
    listing_ms: AtomicU64,
}

impl Session {
    pub(super) fn new(options: SyncOptions, monitor: Arc<dyn Monitor>, stop: StopFlag) -> Arc<Session> {
        Arc::new(Session::build(options, monitor, stop))
    }

    pub(super) fn build(options: SyncOptions, monitor: Arc<dyn Monitor>, stop: StopFlag) -> Session {
        Session {
            options,
            monitor,
            base: Base::Process,
            stop,
            verify: None,
            tree_digest: OnceLock::new(),
            stats: Mutex::default(),
            error: Mutex::default(),
            failed: AtomicBool::new(false),
            source_problems: AtomicU64::new(0),
            listing_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        self.monitor.counters()
    }

    /// Changes the totals.
    pub(super) fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One item failed: counted, told, and with `--fail-fast` the end of the run.
    pub(super) fn problem(&self, problem: Problem) {
        self.count(|stats| match problem.kind {
            ProblemKind::Source => stats.source_problems += 1,
            ProblemKind::Destination => stats.destination_problems += 1,
            ProblemKind::Vanished => stats.vanished += 1,
            ProblemKind::Changed => stats.changed += 1,
            ProblemKind::Differs => stats.differs += 1,
            ProblemKind::Warning => {}
        });
        if matches!(problem.kind, ProblemKind::Source | ProblemKind::Changed) {
            self.source_problems.fetch_add(1, Ordering::Relaxed);
        }
        let fatal = self.options.fail_fast && !matches!(problem.kind, ProblemKind::Warning | ProblemKind::Vanished);
        let full = matches!(problem.errno, Some(code) if is_no_space(code)) && problem.kind == ProblemKind::Destination;
        if fatal && !full {
            self.fail(SyncError::FailFast { problem: problem.to_string() });
        }
        self.monitor.event(Event::Problem(problem));
    }

    /// A system error on one item.
    pub(super) fn io_problem(
        &self,
        kind: ProblemKind,
        operation: Operation,
        path: impl Into<Vec<u8>>,
        error: &std::io::Error,
    ) {
        self.problem(Problem::from_io(kind, operation, path, error));
    }

    /// Whether the source was read in full so far.
    pub(super) fn source_is_whole(&self) -> bool {
        self.source_problems.load(Ordering::Relaxed) == 0
    }

    /// The far sender could not read something, and told it itself.
    pub(super) fn note_source_problem(&self) {
        self.source_problems.fetch_add(1, Ordering::Relaxed);
    }

    /// The whole source is listed: totals are final.
    pub(super) fn listing_done(&self, elapsed_ms: u64) {
        self.listing_ms.store(elapsed_ms, Ordering::Relaxed);
        self.counters().listing_complete.store(1, Ordering::Relaxed);
    }

    pub(super) fn listing_ms(&self) -> u64 {
        self.listing_ms.load(Ordering::Relaxed)
    }

    pub(super) fn notice(&self, text: impl Into<String>) {
        self.monitor.event(Event::Notice(text.into()));
    }

    pub(super) fn detail(&self, text: impl FnOnce() -> String) {
        if self.options.details {
            self.monitor.event(Event::Detail(text()));
        }
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.monitor.event(Event::Phase(phase));
    }

    pub(super) fn item(&self, item: Item) {
        self.monitor.event(Event::Item(item));
    }

    /// The run cannot go on. The first error is the one that counts.
    pub(super) fn fail(&self, error: SyncError) {
        let mut slot = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(error);
        }
        drop(slot);
        self.failed.store(true, Ordering::Release);
    }

    /// Whether to stop taking work: a signal or an error.
    pub(super) fn is_ending(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.stop.requested()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The error that ended the run, once.
    pub(super) fn take_error(&self) -> Option<SyncError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// ENOSPC or EDQUOT.
pub(super) fn is_no_space(errno: i32) -> bool {
    errno == rustix::io::Errno::NOSPC.raw_os_error() || errno == rustix::io::Errno::DQUOT.raw_os_error()
}
