//! Both trees on this machine, or one tree alone.

use std::sync::{Arc, OnceLock, Weak};

use super::Verifier;
use super::contents::FileCheck;
use super::target::Target;
use super::verifier::SourceSide;
use crate::model::{PieceId, Stats};
use crate::monitor::Phase;
use crate::sync::SyncError;
use crate::sync::clock::Stopwatch;
use crate::sync::held::HandleBudget;
use crate::sync::receiver::{Arrived, Owners};
use crate::sync::sender::sources::Sources;
use crate::sync::sender::walk::{PieceSink, SentPiece, Walk};
use crate::sync::session::Session;

/// The walk of the same process. Its files are read by the verifier itself.
#[derive(Default)]
struct Here(OnceLock<Weak<Walk>>);

impl SourceSide for Here {
    fn want(&self, _check: &Arc<FileCheck>) {}

    fn flush(&self, _piece: PieceId) {}

    fn release(&self, arrived: &Arrived) {
        if let Some(walk) = self.0.get().and_then(Weak::upgrade) {
            let released = walk.flow(|flow| flow.on_release(arrived.piece().id));
            debug_assert_eq!(released, Ok(()));
        }
    }
}

struct Sink(Arc<Verifier>);

impl PieceSink for Sink {
    fn piece(&self, piece: Arc<SentPiece>) {
        self.0.arrive(Arrived::Local(piece));
    }
}

/// Compares, or with `destination: None` takes the source's digest.
pub(in crate::sync) fn run(
    session: &Arc<Session>,
    arguments: &[Vec<u8>],
    destination: Option<&[u8]>,
    watch: &Stopwatch,
) -> Result<Stats, SyncError> {
    let budget = HandleBudget::new(crate::sync::handles_max());
    let sources = Sources::resolve(arguments, session, &budget);
    if sources.layers.is_empty() {
        // What was named is missing, and was told.
        return Ok(Stats::default());
    }
    let root_entry = sources.root_entry(session);
    let target = destination
        .map(|destination| Target::open_in(&session.base, destination, sources.single.as_ref()))
        .transpose()?;
    let owners = Owners::new(&session.options, false);
    let here = Arc::new(Here::default());
    let side = Arc::clone(&here) as Arc<dyn SourceSide>;
    let verifier = Verifier::new(Arc::clone(session), target, root_entry, side, owners, &budget);
    let walk = Arc::new(Walk::new(Arc::clone(session), Arc::new(Sink(Arc::clone(&verifier)))));
    let _attached_once = here.0.set(Arc::downgrade(&walk));
    session.phase(Phase::Transferring);
    std::thread::scope(|scope| {
        for _ in 0..crate::sync::threads() {
            crate::sync::spawn(scope, session, || {
                verifier.work();
                walk.wake();
            });
        }
        walk.run(&sources, crate::sync::threads());
        session.listing_done(watch.elapsed_ms());
        verifier.wait_until_finished();
        walk.wake();
    });
    Ok(Stats::default())
}
