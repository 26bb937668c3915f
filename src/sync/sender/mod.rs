//! The sender: sources, the walk, and content on demand.

pub(super) mod links;
pub(super) mod read;
pub(super) mod sources;
pub(super) mod walk;

use std::io;

use self::walk::SentPiece;
use super::session::Session;
use crate::model::{Kind, Operation, ProblemKind};

/// `--remove-source-files`: removes entries that are safe at the destination, unless they changed since they were
/// listed.
pub(super) fn remove_sources(session: &Session, sent: &SentPiece, safe: &[u16]) {
    if session.options.dry_run {
        return;
    }
    for &index in safe {
        let index = usize::from(index);
        let Some(listed) = sent.piece.entries.get(index) else { continue };
        if listed.entry.metadata.kind == Kind::Dir || sent.followed(index) {
            continue;
        }
        let name = &listed.entry.name;
        let removed = sent.dir(index).and_then(|dir| {
            let now = dir.stat(name)?;
            let before = &listed.entry.metadata;
            // Links to it that were removed before have moved its ctime: content and identity decide.
            let same = (now.dev, now.ino, now.size, now.mtime) == (before.dev, before.ino, before.size, before.mtime);
            if !same {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "it changed after it was copied"));
            }
            dir.unlink(name)
        });
        if let Err(error) = removed {
            session.io_problem(ProblemKind::Destination, Operation::RemoveSource, sent.shown(index), &error);
        }
    }
}
