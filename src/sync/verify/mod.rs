//! `xfer verify`: proves two trees equal, or tells every difference.
//!
//! The source's side walks and lists as for a sync; the destination's side joins the listings with what it has, and asks
//! for digests where lengths agree. Both sides read files in parallel. While it goes, the source's tree is folded into
//! one digest.

mod contents;
mod differences;
mod fold;
mod hidden;
mod links;
mod local;
mod node;
mod target;
mod verifier;

use std::sync::Arc;

pub(super) use self::contents::FileCheck;
#[cfg(test)]
pub(super) use self::local::run as local_run;
pub(super) use self::target::Target;
pub(super) use self::verifier::{SourceSide, Verifier};
use super::clock::Stopwatch;
use super::session::Session;
use super::{Connect, Ends, StopFlag, SyncError, remote};
use crate::model::{Digest, Outcome, Stats};
use crate::monitor::{Event, Monitor, Phase};
use crate::net::Address;
use crate::plan::options::{Preserve, SyncOptions};

/// How trees are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VerifyMode {
    /// Names, kinds and contents only.
    pub(super) content_only: bool,
}

/// A comparison that the user asked for.
#[derive(Debug, Clone)]
pub struct VerifyRequest {
    /// The source, one, as of a sync.
    pub sources: Vec<Address>,
    /// What they are compared with; `None`: only the digest of the one tree is wanted.
    pub destination: Option<Address>,
    /// Filters, link policy and what is preserved, as of a sync.
    pub options: SyncOptions,
    /// Names, kinds and contents only.
    pub content_only: bool,
    /// How a far end is reached.
    pub connect: Connect,
}

/// What a comparison found.
#[derive(Debug, Clone)]
pub struct VerifyReport {
    /// Totals; differences are counted as `differs`.
    pub stats: Stats,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether both trees are equal; `None` for one tree.
    pub equal: Option<bool>,
    /// Digest of the source's tree; `None` when it could not be read whole, or is not equal to the destination.
    pub tree_digest: Option<Digest>,
}

/// Compares two trees, or takes the digest of one. Nothing is written anywhere.
///
/// Every difference is told as a problem of [`crate::model::ProblemKind::Differs`], one for each item, by its path in the
/// tree. Errors: what keeps a comparison from being made at all; an item that cannot be read is a problem.
pub fn verify(request: &VerifyRequest, monitor: Arc<dyn Monitor>, stop: &StopFlag) -> Result<VerifyReport, SyncError> {
    let [source] = &request.sources[..] else {
        return Err(SyncError::usage("verify compares one tree with another: name one SRC and one DST"));
    };
    let watch = Stopwatch::start();
    crate::fs::raise_open_files_limit();
    monitor.event(Event::Phase(Phase::Connecting));
    let mut options = request.options.clone();
    if request.content_only {
        let Preserve { devices, specials, .. } = options.preserve;
        options.preserve = Preserve { devices, specials, ..Preserve::default() };
    }
    let mut session = Session::build(options, monitor, stop.clone());
    session.verify = Some(VerifyMode { content_only: request.content_only });
    let session = Arc::new(session);
    let paths = [source.path().to_vec()];
    let destination = request.destination.as_ref();
    let far_stats = match super::ends(&request.sources, destination)? {
        Ends::Here => local::run(&session, &paths, destination.map(Address::path), &watch),
        ends => remote::run(&session, &ends, &paths, destination.map(Address::path), &request.connect, &watch),
    };
    let (stats, outcome) = super::conclude(&session, far_stats)?;
    let is_complete = outcome == Outcome::Complete;
    let tree_digest = session.tree_digest.get().copied().filter(|_| is_complete);
    if is_complete && tree_digest.is_none() {
        // No proof without a digest: nothing may pass for equal because it was left out.
        return Err(SyncError::usage("nothing was compared: the options and filters leave out what SRC names"));
    }
    Ok(VerifyReport { stats, outcome, equal: destination.map(|_| is_complete), tree_digest })
}
